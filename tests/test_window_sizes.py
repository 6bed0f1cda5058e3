"""Rooms of windows and sizes are made for one size of bottom and used for others: batches, and larger images."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen import layers
from prototxt_gen.errors import NetError
from prototxt_gen.layers.example import Example
from tests import golden
from tests.test_laws import as_tuple
from tests.test_structural_rooms import a_layer, run_torch
from tests.test_window_rooms import run_onnx

RNG = np.random.default_rng(12)
TYPES = (
    *("Convolution", "ConvolutionDepthwise", "Deconvolution", "DepthToSpace", "Crop", "CropCenter", "Embed"),
    *("Im2col", "InnerProduct", "Interp", "LRN", "MaxUnPool", "Pad", "PixelShuffle", "Pooling", "Reorg", "Resize"),
    *("ResizeNearestNeighbor", "SPP", "ShuffleChannel", "Upsample", "UpsampleDarknet"),
)


@pytest.mark.parametrize("type_", TYPES)
def test_batch_is_not_written_into_the_onnx(type_: str) -> None:
    room = layers.every()[type_]
    for example in room.examples:
        bottoms, blobs, _ = golden.draw(room, example)
        first = {"axis: 0", f"axis: -{len(example.bottoms[0])}"}  # the batch is data there; "of nothing" is 0/0
        whole = any(axis in example.params for axis in first) or "of nothing" in example.name
        if whole or example.phase == "TRAIN":
            continue
        more = [np.concatenate([b, b[:1], b]) for b in bottoms]
        got = run_onnx(type_, example.bottoms, more, example.params, example.tops, blobs)
        once = run_onnx(type_, example.bottoms, bottoms, example.params, example.tops, blobs)
        for big, small in zip(got, once, strict=True):
            np.testing.assert_allclose(big, np.concatenate([small, small[:1], small]), rtol=1e-5, atol=1e-5)


SIZED = {"Convolution", "Im2col", "InnerProduct"}
"""An inner product is made for one size; a kernel larger than its bottom gets the padding it needs there."""


@pytest.mark.parametrize("type_", [type_ for type_ in TYPES if type_ not in SIZED])
def test_modules_take_other_sizes(type_: str) -> None:
    import torch

    room = layers.every()[type_]
    for example in room.examples:
        spatial = [shape for shape in example.bottoms if len(shape) == 4]
        if len(spatial) != len(example.bottoms) or type_ == "MaxUnPool":
            continue
        wider = [(*shape[:2], shape[2] * 2, shape[3] * 2) for shape in spatial]
        try:
            room.infer(golden.layer_of(room, Example("wider", tuple(wider), example.params, example.tops)), wider)
        except NetError:
            continue  # such as a pyramid level that does not fit
        _, blobs, _ = golden.draw(room, example)
        bottoms = [torch.from_numpy(RNG.standard_normal(shape).astype("float32")) for shape in wider]
        made = room.torch(a_layer(type_, spatial, example.params, example.tops), spatial)
        room.load(made, blobs)
        wanted = run_torch(type_, [b.numpy() for b in bottoms], example.params, example.tops, blobs)
        for top, other in zip(as_tuple(made(*bottoms)), wanted, strict=True):
            np.testing.assert_allclose(top.detach().numpy(), other, rtol=1e-5, atol=1e-6)
