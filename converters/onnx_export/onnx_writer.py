"""Writing an ONNX file, with weights that are copied from the mapped weights file a few MiB at a time.

Protobuf merges two messages of the same type that follow each other in a file. So the model without arrays is written
first, and then, for every array, a model with this one initializer only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx

from converters.onnx_export.net_to_onnx import OnnxNet
from converters.onnx_export.onnx_graph import Array
from prototxt_gen.caffemodel.wire import encode_head
from prototxt_gen.common import files

MAX_FILE_BYTES = 2**31 - 2**20
"""Largest number of bytes in one ONNX file, as ONNX Runtime and protobuf refuse 2 GiB and more."""
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
"""Field numbers: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data."""
_CHUNK_BYTES = 2**22


def save_onnx(net: OnnxNet, path: Path, force: bool = False, limit: int = MAX_FILE_BYTES) -> list[Path]:
    """Write the model to `path`; return the written files.

    Weights of `limit` bytes or more go to a second file, `path`.data. `force`: overwrite. Raises PrototxtGenError if a
    file exists and `force` is False.
    """
    if sum(array.nbytes for array in net.graph.arrays.values()) < limit:
        with files.replacing(path, force) as temporary, temporary.open("r+b") as file:
            _write_one_file(file, net)
        return [path]
    data_path = path.with_name(f"{path.name}.data")
    files.refuse_overwriting([path, data_path], force)
    with files.replacing(data_path) as data, files.replacing(path) as temporary:
        _write_two_files(net, data, temporary, data_path.name)
    return [path, data_path]


def _model_without_arrays(net: OnnxNet) -> onnx.ModelProto:
    """Return the model without initializers."""
    model = net.model(with_weights=False)
    del model.graph.initializer[:]
    float_arrays = {name for name, array in net.graph.arrays.items() if array.dtype.kind == "f"}
    kept = [info for info in model.graph.input if info.name not in float_arrays]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def _write_one_file(file: BinaryIO, net: OnnxNet) -> None:
    file.write(_model_without_arrays(net).SerializeToString())
    for name, array in net.graph.arrays.items():
        header = _tensor_header(name, array).SerializeToString() + encode_head(_RAW_DATA, array.nbytes)
        tensor = encode_head(_INITIALIZER, len(header) + array.nbytes)
        file.write(encode_head(_GRAPH, len(tensor) + len(header) + array.nbytes) + tensor + header)
        for chunk in _chunks(array):
            file.write(chunk)


def _write_two_files(net: OnnxNet, data: Path, model_path: Path, location: str) -> None:
    model = _model_without_arrays(net)
    with data.open("r+b") as file:
        for name, array in net.graph.arrays.items():
            tensor = _tensor_header(name, array)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            file.write(b"\0" * (-file.tell() % 4096))  # page boundary, so that ONNX Runtime can map it
            for key, value in (("location", location), ("offset", file.tell()), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            for chunk in _chunks(array):
                file.write(chunk)
            model.graph.initializer.append(tensor)
    model_path.write_bytes(model.SerializeToString())


def _tensor_header(name: str, array: Array) -> onnx.TensorProto:
    """Return a tensor with name, shape and type, but without its numbers."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.TensorProto(name=name, dims=array.shape, data_type=kind)


def _chunks(array: Array) -> Iterator[memoryview]:
    """Yield the array's little-endian bytes in row order, a few MiB at a time; a contiguous array is not copied."""
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    data = flat.view(np.uint8)  # bytes, as numbers in a mapped file are often not aligned
    for start in range(0, data.size, _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES].data
