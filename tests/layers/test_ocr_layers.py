"""Layer types of caffe_ocr, compared with loops that follow its C++ code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError, UnsupportedError
from tests.layers.test_utility_layers import layer_of
from tests.layers.test_window_layers import both, run_onnx

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(13)


def decoded(x: Array, blank: int, merges: bool) -> Array:
    steps, batch, classes = x.shape
    top = np.full((batch, steps, 1, 1), -1.0)
    for n in range(batch):
        before, found = -1, []
        for t in range(steps):
            best = 0
            for c in range(1, classes):
                if x[t, n, c] > x[t, n, best]:
                    best = c
            if best != blank and not (merges and best == before):
                found.append(best)
            before = best
        top[n, : len(found), 0, 0] = found
    return top


@pytest.mark.parametrize(("blank", "classes"), [(0, 3), (2, 3), (-1, 4)])
@pytest.mark.parametrize("merges", [True, False])
def test_greedy_decoder_matches_caffe_ocr(blank: int, classes: int, merges: bool) -> None:
    x = RNG.integers(0, 3, (12, 5, classes)).astype("float64")  # with ties: the first class counts
    params = f"ctc_decoder_param {{ blank_index: {blank} ctc_merge_repeated: {str(merges).lower()} }}"
    (got,) = both("CTCGreedyDecoder", [x], params)
    np.testing.assert_array_equal(got, decoded(x, blank % classes, merges))


def test_greedy_decoder_refuses_a_second_bottom() -> None:
    with pytest.raises(UnsupportedError, match="different meanings in the forks"):
        both("CTCGreedyDecoder", [np.zeros((4, 2, 3)), np.zeros((4, 2))], "")
    with pytest.raises(NetError, match="blank_index 3 is not one of the 3 classes"):
        both("CTCGreedyDecoder", [np.zeros((4, 2, 3))], "ctc_decoder_param { blank_index: 3 }")


def dense_block(x: Array, blobs: list[Array], steps: int, growth: int, inner: bool) -> Array:
    """Forward_cpu in float64, with the blobs in Caffe's order and the statistics not divided by the factor."""

    def normalised(x: Array, at: int, step: int) -> Array:
        scale, bias, mean, variance = (blobs[(at + i) * steps + step] for i in range(4))
        return np.maximum(scale * ((x - mean) / np.sqrt(variance + 1e-5)) + bias, 0)

    def convolved(x: Array, filters: Array, size: int) -> Array:
        top = np.zeros((x.shape[0], len(filters), *x.shape[2:]))
        for h, w, i, j in np.ndindex(*x.shape[2:], size, size):
            row, column = h + size // 2 - i, w + size // 2 - j
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                top[:, :, h, w] += x[:, :, row, column] @ filters[:, :, i, j].T
        return top

    for step in range(steps):
        new = normalised(x, 1, step)
        if inner:
            new = normalised(convolved(new, blobs[5 * steps + step], 1), 6, step)
        x = np.concatenate([x, convolved(new, blobs[step], 3)], 1)
    return x


def filters(shape: tuple[int, ...]) -> Array:
    """Return filters whose sums are about as large as what they add up."""
    made: Array = RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    return made.astype("float32")


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("factor", [0.0, 2.5])
def test_dense_block_matches_caffe_ocr(inner: bool, factor: float) -> None:
    """In float64. ONNX Runtime convolves in float32 only, so its filters are such that no top grows large."""
    import torch

    steps, growth = 3, 2
    x = RNG.normal(size=(2, 4, 3, 5)).astype("float32")
    params = f"denseblock_param {{ numTransition: {steps} growthRate: {growth} use_BC: {str(inner).lower()} }}"
    layer_type, layer = layers.all_layer_types()["DenseBlock"], layer_of("DenseBlock", [x.shape], params)
    specs = layer_type.blobs(layer, [x.shape])
    blobs = {role: RNG.uniform(0.2, 1.5, spec.shape).astype("float32") for role, spec in specs.items()}
    blobs |= {role: filters(spec.shape) for role, spec in specs.items() if "filter" in role}
    blobs["factor"][:] = factor
    assert [blob.shape for blob in list(blobs.values())[steps : steps + 2]] == [(1, 4, 1, 1), (1, 6, 1, 1)]
    exact = {role: blob.astype("float64") for role, blob in blobs.items()}
    plain = [b / factor if factor and ("mean" in r or "variance" in r) else b for r, b in exact.items()]
    wanted = dense_block(x.astype("float64"), plain, steps, growth, inner)
    module = layer_type.torch(layer, [x.shape]).eval().double()
    layer_type.load(module, blobs)
    got = module(torch.from_numpy(x).double()).detach().numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)
    (got,) = run_onnx("DenseBlock", [x.shape], [x], params, 1, blobs)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_dense_block_updates_moving_averages_in_training() -> None:
    import torch

    x = RNG.normal(size=(2, 3, 4, 4))
    layer = layer_of("DenseBlock", [x.shape], "denseblock_param { numTransition: 1 growthRate: 1 }", phase="TRAIN")
    module: Any = layers.all_layer_types()["DenseBlock"].torch(layer, [x.shape]).train()
    module(torch.from_numpy(x.astype("float32")))
    np.testing.assert_allclose(module.mean0.flatten(), 0.1 * x.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(module.variance0.flatten(), 0.1 * x.var((0, 2, 3), ddof=1), rtol=1e-4)
