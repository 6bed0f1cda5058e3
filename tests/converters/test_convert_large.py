"""Weights larger than 2 GiB, the limit of protobuf: converted without a copy, and written beside the ONNX model."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import onnx
import pytest

from converters import read_net_with_weights
from converters.onnx_export import onnx_writer
from converters.write_models import convert_to_onnx
from prototxt_gen.caffemodel.wire import encode_head, encode_message, encode_varint

pytestmark = pytest.mark.slow

OUT, IN = 26_000, 27_000
NET = (
    f'name: "large" input: "data" input_shape {{ dim: 1 dim: {IN} }}\n'
    f'layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
    f"inner_product_param {{ num_output: {OUT} bias_term: false }} }}\n"
)
LAST = 0.5


def sparse_weights(path: Path) -> None:
    """Write 2.6 GiB of weights, of which only the last is not 0, as a sparse file."""
    count = OUT * IN
    shape = encode_message(7, encode_message(1, encode_varint(OUT) + encode_varint(IN)))
    blob = shape + encode_head(5, 4 * count)
    layer = encode_message(1, b"ip") + encode_message(2, b"InnerProduct") + encode_head(7, len(blob) + 4 * count) + blob
    with path.open("wb") as file:
        file.write(encode_head(100, len(layer) + 4 * count) + layer)
        file.seek(4 * (count - 1), os.SEEK_CUR)
        file.write(struct.pack("<f", LAST))
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no sparse files")


def test_weights_larger_than_two_gibibytes_are_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole conversion except writing the bytes, which `benchmarks` does."""
    prototxt, model, out = (tmp_path / name for name in ("net.prototxt", "net.caffemodel", "net.onnx"))
    prototxt.write_text(NET)
    sparse_weights(model)
    assert model.stat().st_size > 2**31
    net = convert_to_onnx(read_net_with_weights(prototxt, model))
    (array,) = (array for array in net.graph.arrays.values() if array.nbytes > 2**31)
    assert array.shape == (OUT, IN) and array[-1, -1] == LAST and not array.flags.owndata
    monkeypatch.setattr(onnx_writer, "_chunks", lambda array: iter(()))
    assert onnx_writer.save_onnx(net, out) == [out, tmp_path / "net.onnx.data"]
    written = onnx.load(str(out), load_external_data=False)
    (weight,) = (tensor for tensor in written.graph.initializer if list(tensor.dims) == [OUT, IN])
    location = {entry.key: entry.value for entry in weight.external_data}
    assert location["location"] == "net.onnx.data" and int(location["length"]) == 4 * OUT * IN
    assert out.stat().st_size < 1 << 20
