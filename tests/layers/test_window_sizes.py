"""Layer types with windows or sizes that are converted at one size and used at others: other batches, larger images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters import read_net_with_weights
from converters.onnx_export.net_to_onnx import lower_to_onnx
from converters.pytorch_export.output_files import load_folder
from converters.write_models import write_torch
from prototxt_gen import layers, parse_net
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.layers.example import Example
from prototxt_gen.runtime.torch_net import TorchNet
from prototxt_gen.weights import Weights
from tests import golden
from tests.layers.test_laws import as_tuple
from tests.layers.test_utility_layers import layer_of, run_torch
from tests.layers.test_window_layers import run_onnx

POOLED = """input: "data" input_shape {{ dim: 1 dim: 2 {} }}
layer {{ name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param {{ {} }} }}"""
RNG = np.random.default_rng(12)
TYPES = (
    *("Convolution", "ConvolutionDepthwise", "Deconvolution", "DepthToSpace", "Crop", "CropCenter", "Embed"),
    *("Im2col", "InnerProduct", "Interp", "LRN", "MaxUnPool", "Pad", "PixelShuffle", "Pooling", "Reorg", "Resize"),
    *("ResizeNearestNeighbor", "SPP", "ShuffleChannel", "Upsample", "UpsampleDarknet"),
)


@pytest.mark.parametrize("type_", TYPES)
def test_onnx_does_not_fix_the_batch_size(type_: str) -> None:
    layer_type = layers.all_layer_types()[type_]
    for example in layer_type.examples:
        bottoms, blobs, _ = golden.draw(layer_type, example)
        first = {"axis: 0", f"axis: -{len(example.bottoms[0])}"}  # the batch is data there; "of nothing" is 0/0
        whole = any(axis in example.params for axis in first) or "of nothing" in example.name
        if whole or example.phase == "TRAIN":
            continue
        more = [np.concatenate([b, b[:1], b]) for b in bottoms]
        got = run_onnx(type_, example.bottoms, more, example.params, example.tops, blobs)
        once = run_onnx(type_, example.bottoms, bottoms, example.params, example.tops, blobs)
        for big, small in zip(got, once, strict=True):
            np.testing.assert_allclose(big, np.concatenate([small, small[:1], small]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("type_", [type_ for type_ in TYPES if type_ != "InnerProduct"])
def test_modules_accept_other_sizes(type_: str) -> None:
    import torch

    layer_type = layers.all_layer_types()[type_]
    for example in layer_type.examples:
        spatial = [shape for shape in example.bottoms if len(shape) == 4]
        if len(spatial) != len(example.bottoms) or type_ == "MaxUnPool":
            continue
        wider = [(*shape[:2], shape[2] * 2, shape[3] * 2) for shape in spatial]
        try:
            layer_type.infer(
                golden.layer_of(layer_type, Example("wider", tuple(wider), example.params, example.tops)), wider
            )
        except NetError:
            continue  # such as a pyramid level that does not fit
        _, blobs, _ = golden.draw(layer_type, example)
        bottoms = [torch.from_numpy(RNG.standard_normal(shape).astype("float32")) for shape in wider]
        made = layer_type.torch(layer_of(type_, spatial, example.params, example.tops), spatial)
        layer_type.load(made, blobs)
        wanted = run_torch(type_, [b.numpy() for b in bottoms], example.params, example.tops, blobs)
        for top, other in zip(as_tuple(made(*bottoms)), wanted, strict=True):
            np.testing.assert_allclose(top.detach().numpy(), other, rtol=1e-5, atol=1e-6)


WINDOWS = [
    f"{pool} kernel_size: {kernel} stride: {stride} pad: {pad} {rounding}"
    for pool in ("pool: MAX", "pool: AVE")
    for kernel in (1, 2, 3)
    for stride in (1, 2, 3, 5)
    for pad in range(kernel)
    for rounding in ("", "round_mode: FLOOR")
]


@pytest.mark.parametrize("window", WINDOWS)
def test_pooling_with_dynamic_size_has_caffes_windows(window: str) -> None:
    """A model written for one size is right for larger ones, where windows reach less or more beyond the image."""
    import onnxruntime
    import torch

    one = read_net_with_weights(parse_net(POOLED.format("dim: 10 dim: 10", window)), Weights({}))
    try:
        model = lower_to_onnx(one.analysis, one.weights, dynamic_size=True).model().SerializeToString()
    except UnsupportedError as error:
        assert "pool: AVE" in window and "cannot be left open: layer 'pool'" in str(error)
        return
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for high, wide in ((11, 12), (12, 13), (13, 9), (9, 8)):
        x = RNG.standard_normal((1, 2, high, wide)).astype("float32")
        there = read_net_with_weights(parse_net(POOLED.format(f"dim: {high} dim: {wide}", window)), Weights({}))
        wanted = TorchNet(there.analysis)(torch.from_numpy(x))
        assert tuple(wanted.shape) == there.analysis.shapes[there.net.layers[-1].tops[0]]
        np.testing.assert_allclose(session.run(None, {"data": x})[0], wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_same_padding_has_no_dynamic_size(tmp_path: Path) -> None:
    """SAME pads even and odd sizes differently, so a model for an even size must not accept an odd one."""
    import torch

    text = POOLED.format("dim: 10 dim: 10", "kernel_size: 3 stride: 2 pad_type: 1")
    one = read_net_with_weights(parse_net(text), Weights({}))
    with pytest.raises(UnsupportedError, match="cannot be left open: layer 'pool'"):
        lower_to_onnx(one.analysis, one.weights, dynamic_size=True)
    done = write_torch(one, tmp_path / "net")
    assert any("the size is fixed: layer 'pool'" in remark for remark in done.remarks)
    with pytest.raises(ValueError, match="this net takes"):
        load_folder(tmp_path / "net")(torch.zeros(1, 2, 11, 11))
