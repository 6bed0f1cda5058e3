"""Writing an ONNX model whose weights are streamed from where they lie, never held in memory whole.

Protobuf reads two messages of one type, one behind the other, as their union. So the graph
comes first, and behind it, for every array, a model that holds nothing but that one initializer.
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

LIMIT = 2**31 - 2**20
"""ONNX Runtime and protobuf refuse files of 2 GiB; arrays then go to a file beside the model."""
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_CHUNK = 2**22


def save(net: OnnxNet, path: Path, force: bool = False, limit: int = LIMIT) -> list[Path]:
    """Write the model to `path`, and `path`.data beside it where the weights pass `limit` bytes; return the files."""
    if sum(array.nbytes for array in net.graph.arrays.values()) < limit:
        with files.replacing(path, force) as temporary, temporary.open("r+b") as file:
            _write_all(file, net)
        return [path]
    beside = path.with_name(f"{path.name}.data")
    files.refuse_overwriting([path, beside], force)
    with files.replacing(beside) as data, files.replacing(path) as temporary:
        _write_beside(net, data, temporary, beside.name)
    return [path, beside]


def _bare(net: OnnxNet) -> onnx.ModelProto:
    """Return the model without arrays."""
    model = net.model(with_weights=False)
    del model.graph.initializer[:]
    heavy = {name for name, array in net.graph.arrays.items() if array.dtype.kind == "f"}
    kept = [info for info in model.graph.input if info.name not in heavy]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def _write_all(file: BinaryIO, net: OnnxNet) -> None:
    file.write(_bare(net).SerializeToString())
    for name, array in net.graph.arrays.items():
        inside = _tensor(name, array).SerializeToString() + encode_head(_RAW_DATA, array.nbytes)
        tensor = encode_head(_INITIALIZER, len(inside) + array.nbytes)
        file.write(encode_head(_GRAPH, len(tensor) + len(inside) + array.nbytes) + tensor + inside)
        for piece in _pieces(array):
            file.write(piece)


def _write_beside(net: OnnxNet, data: Path, model_path: Path, location: str) -> None:
    model = _bare(net)
    with data.open("r+b") as file:
        for name, array in net.graph.arrays.items():
            tensor = _tensor(name, array)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            file.write(b"\0" * (-file.tell() % 4096))  # ONNX Runtime maps arrays that begin on a page
            for key, value in (("location", location), ("offset", file.tell()), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            for piece in _pieces(array):
                file.write(piece)
            model.graph.initializer.append(tensor)
    model_path.write_bytes(model.SerializeToString())


def _tensor(name: str, array: Array) -> onnx.TensorProto:
    """Return the tensor without its numbers."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.TensorProto(name=name, dims=array.shape, data_type=kind)


def _pieces(array: Array) -> Iterator[memoryview]:
    """Yield the array's bytes in row order, a few MiB at a time: straight from where they lie, if they lie so."""
    stored = array.dtype.newbyteorder("<")
    flat = np.ascontiguousarray(array, stored).reshape(-1)
    plain = flat.view(np.uint8)  # bytes need no alignment: numbers in a mapped file often have none
    for start in range(0, plain.size, _CHUNK):
        yield plain[start : start + _CHUNK].data
