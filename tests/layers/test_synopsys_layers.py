"""Types and fields of synopsys-caffe, compared with loops that follow its C++ code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from converters import to_onnx
from prototxt_gen import analyse, layers, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.passes.bn_merge import merge_batch_norms
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import Weights, read, write
from tests.layers.test_utility_layers import layer_of
from tests.layers.test_window_layers import both
from tests.support.sane_weights import sane_weights

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(3)


def test_reshape_with_pixelshuffler() -> None:
    bottom, r = RNG.normal(size=(2, 18, 2, 3)), 3
    top = np.zeros((2, 2, 6, 9))
    for n, c, h, w in np.ndindex(*bottom.shape):
        top[n, c // (r * r), h * r + (c // r) % r, w * r + (c % (r * r)) % r] = bottom[n, c, h, w]
    (got,) = both("Reshape", [bottom], "reshape_param { shape { dim: 7 } pixelshuffler: 3 }")
    np.testing.assert_allclose(got, top, rtol=1e-6)
    with pytest.raises(UnsupportedError, match="does not divide the channels"):
        both("Reshape", [bottom], "reshape_param { pixelshuffler: 2 }")


def normalised(x: Array, mean: Array, variance: Array, eps: float) -> Array:
    return (x - mean[:, None, None]) / (np.sqrt(variance) + eps)[:, None, None]


def test_batch_norm_with_eps_added_to_the_standard_deviation() -> None:
    x, eps = RNG.normal(size=(2, 3, 4, 5)), 0.25
    mean, variance = RNG.normal(size=3), np.array([0.5, 2.0, 0.0])
    blobs = {"mean": mean * 2, "variance": variance * 2, "factor": np.full(1, 2.0)}
    params = f"add_eps_before_sqrt: false eps: {eps}"
    (got,) = both("BatchNorm", [x], f"batch_norm_param {{ {params} use_global_stats: true }}", 1, **blobs)
    np.testing.assert_allclose(got, normalised(x, mean, variance, eps), rtol=1e-5, atol=1e-6)
    (got,) = both("BatchNorm", [x], f"batch_norm_param {{ {params} use_global_stats: false }}", 1, **blobs)
    np.testing.assert_allclose(got, normalised(x, x.mean((0, 2, 3)), x.var((0, 2, 3)), eps), rtol=1e-5, atol=1e-6)
    layer = layer_of("BatchNorm", [x.shape], f"batch_norm_param {{ {params} }}")
    affine = layers.all_layer_types()["BatchNorm"].affine(
        layer, {role: blob.astype("float32") for role, blob in blobs.items()}
    )
    assert affine is not None
    scale, shift = (one[:, None, None] for one in affine)
    np.testing.assert_allclose(x * scale + shift, normalised(x, mean, variance, eps), rtol=1e-5, atol=1e-6)


def test_gradient_of_batch_norm_with_eps_added_to_the_standard_deviation() -> None:
    """Source: batch_norm_layer.cpp Backward_cpu, which divides by the deviation plus eps. One channel is constant."""
    import torch

    x, diff, eps = RNG.normal(size=(4, 2, 3, 3)), RNG.normal(size=(4, 2, 3, 3)), 0.25
    x[:, 1] = 0.5
    layer = layer_of("BatchNorm", [x.shape], f"batch_norm_param {{ add_eps_before_sqrt: false eps: {eps} }}")
    module = layers.all_layer_types()["BatchNorm"].torch(layer, [x.shape]).double().train()
    bottom = torch.from_numpy(x).requires_grad_()
    module(bottom).backward(torch.from_numpy(diff))
    axes = (0, 2, 3)
    y = normalised(x, x.mean(axes), x.var(axes), eps)
    centred = diff - diff.mean(axes, keepdims=True) - (diff * y).mean(axes, keepdims=True) * y
    assert bottom.grad is not None
    np.testing.assert_allclose(bottom.grad.numpy(), centred / (x.std(axes) + eps)[:, None, None], atol=1e-12)


def test_average_without_padding_under_its_old_name() -> None:
    image = RNG.normal(size=(1, 2, 7, 6))
    old, new = (
        both("Pooling", [image], f"pooling_param {{ pool: {name} kernel_size: 3 stride: 2 pad: 1 }}")[0]
        for name in ("AVE_TF", "AVE_EXC_PAD")
    )
    np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("shapes", [((2, 3, 4), (2, 1, 4)), ((3, 4), (2, 1, 1)), ((2, 3, 4), (4,)), ((2, 2), ())])
@pytest.mark.parametrize("type_", ["Add", "Mul"])
def test_add_and_mul_broadcast(type_: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Each element of the top comes from the elements at its index, or at index 0 on axes of size 1."""
    x, y = (RNG.normal(size=shape).astype("float32").astype("float64") for shape in shapes)
    (got,) = both(type_, [x, y], "")
    for place in np.ndindex(*got.shape):
        one, other = (
            a[tuple(0 if size == 1 else at for at, size in zip(place[len(place) - a.ndim :], a.shape, strict=True))]
            for a in (x, y)
        )
        assert got[place] == pytest.approx(one * other if type_ == "Mul" else one + other, rel=1e-5)


def test_sizes_that_cannot_be_broadcast_are_refused() -> None:
    with pytest.raises(NetError, match="bottoms differ, 2x3 and 2x2; sizes must be equal or 1"):
        both("Add", [np.zeros((2, 3)), np.zeros((2, 2))], "")


def test_squeeze() -> None:
    x = RNG.normal(size=(2, 1, 3, 1))
    (got,) = both("Squeeze", [x], "squeeze_param { axis: -1 }")
    np.testing.assert_allclose(got, x.reshape(2, 1, 3), rtol=1e-6)
    (got,) = both("Squeeze", [x], "")
    np.testing.assert_allclose(got, x.reshape(2, 3), rtol=1e-6)
    with pytest.raises(NetError, match="does not have size 1 in its bottom 2x1x3x1"):
        both("Squeeze", [x], "squeeze_param { axis: 2 }")


def interpolated(x: Array, high: int, wide: int, at: str) -> Array:
    """The loop of the fork over N×C×H×W, in float32."""

    def places(top: int, size: int) -> list[tuple[int, int, np.float32]]:
        corners = at == "align_corners: true" and top > 1
        scale = np.float32(size - 1) / np.float32(top - 1) if corners else np.float32(size) / np.float32(top)
        found = []
        for i in range(top):
            exact = np.float32(i) * scale
            if at == "half_pixel_centers: true" or (at == "pytorch_half_pixel: true" and top > 1):
                exact = (np.float32(i) + np.float32(0.5)) * scale - np.float32(0.5)
            elif at == "pytorch_half_pixel: true":
                exact = np.float32(-0.5)
            low = np.floor(exact)
            found.append((max(int(low), 0), min(int(np.ceil(exact)), size - 1), exact - low))
        return found

    top = np.zeros((*x.shape[:2], high, wide))
    for i, (y0, y1, dy) in enumerate(places(high, x.shape[2])):
        for j, (x0, x1, dx) in enumerate(places(wide, x.shape[3])):
            above = x[:, :, y0, x0] + (x[:, :, y0, x1] - x[:, :, y0, x0]) * dx
            below = x[:, :, y1, x0] + (x[:, :, y1, x1] - x[:, :, y1, x0]) * dx
            top[:, :, i, j] = above + (below - above) * dy
    return top


@pytest.mark.parametrize("size", [(7, 3), (1, 1), (3, 11)])
@pytest.mark.parametrize("at", ["", "align_corners: true", "half_pixel_centers: true", "pytorch_half_pixel: true"])
def test_resize_bilinear(at: str, size: tuple[int, int]) -> None:
    x = RNG.normal(size=(2, 2, 4, 5)).astype("float32")
    params = f"{at} output_height: {size[0]} output_width: {size[1]}"
    wanted = interpolated(x, *size, at)
    (got,) = both("ResizeBilinear", [x], f'resize_bilinear_param {{ {params} data_format: "NCHW" }}')
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    (got,) = both("ResizeBilinear", [x.transpose(0, 2, 3, 1)], f"resize_bilinear_param {{ {params} }}")
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), wanted, rtol=1e-5, atol=1e-6)


def repeated(name: str, numbers: Sequence[int]) -> str:
    return " ".join(f"{name}: {number}" for number in numbers)


@pytest.mark.parametrize(
    ("shape", "blocks", "edges"),
    [((2, 3, 3, 4), (1, 2, 2), (0, 0, 2, 1, 0, 2)), ((1, 4, 3, 2), (2, 3), (0, 0, 1, 2)), ((2, 6), (3,), (0, 0))],
)
def test_space_to_batch_and_back(shape: tuple[int, ...], blocks: tuple[int, ...], edges: tuple[int, ...]) -> None:
    """Pixel p of the padded image goes to position p // block of item p % block; the latter is the slow index."""
    x, count = RNG.normal(size=shape), len(blocks)
    padded = [s + edges[2 * i] + edges[2 * i + 1] for i, s in enumerate(shape[1 : 1 + count])]
    sizes = [size // block for size, block in zip(padded, blocks, strict=True)]
    wanted = np.zeros((shape[0] * int(np.prod(blocks)), *sizes, *shape[1 + count :]))
    for place in np.ndindex(*shape[: 1 + count]):
        item, at = 0, [p + edges[2 * i] for i, p in enumerate(place[1:])]
        for block, p in zip(blocks, at, strict=True):
            item = item * block + p % block
        item = item * shape[0] + place[0]
        top = (item, *(p // block for p, block in zip(at, blocks, strict=True)))
        wanted[top] = x[place]
    params = f"{repeated('block_shape', blocks)} {repeated('%s', edges)}"
    (got,) = both("SpaceToBatchND", [x], f"space_to_batch_nd_param {{ {params.replace('%s', 'paddings')} }}")
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    (back,) = both("BatchToSpaceND", [got], f"batch_to_space_nd_param {{ {params.replace('%s', 'crops')} }}")
    np.testing.assert_allclose(back, x, rtol=1e-6)


def test_eps_survives_conversion_and_is_not_merged_into_scale(tmp_path: Path) -> None:
    text = """name: "net" input: "x" input_shape { dim: 1 dim: 3 dim: 4 dim: 4 }
        layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y"
          batch_norm_param { add_eps_before_sqrt: false eps: 0.25 } }"""
    analysis = analyse(parse_net(text).at("TEST"))
    weights = sane_weights(analysis)
    (tmp_path / "net.prototxt").write_text(text)
    write(tmp_path / "net.caffemodel", analysis, weights, find_dialect("bvlc"))
    to_onnx(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "net.onnx", fold=False)
    told = ["convert", "caffemodel", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "back.caffemodel")]
    assert CliRunner().invoke(cli, told).exit_code == 0
    back = read(tmp_path / "back.caffemodel", analysis).of("bn")
    for role in ("mean", "variance"):
        own = weights.of("bn")
        np.testing.assert_allclose(back[role] / back["factor"], own[role] / own["factor"], rtol=1e-5)
    with pytest.raises(UnsupportedError, match="BN adds it to the variance"):
        merge_batch_norms(parse_net(text), Weights({}))


@pytest.mark.parametrize(("tf", "yx"), [(True, True), (True, False), (False, True)])
def test_prior_box_with_tf_and_yx_order(tf: bool, yx: bool) -> None:
    flags = f"tf: {str(tf).lower()} yx_order: {str(yx).lower()}"
    sizes = "min_size: 60.5 min_size: 90 max_size: 80 max_size: 120 aspect_ratio: 2 flip: false clip: false"
    bottoms = [np.zeros((1, 1, 2, 3)), np.zeros((1, 1, 200, 300))]
    (got,) = both("PriorBox", bottoms, f"prior_box_param {{ {sizes} {flags} }}")
    wanted: list[float] = []
    for h, w in np.ndindex(2, 3):
        x, y = (w + 0.5) * 100, (h + 0.5) * 100
        for low, high in ((60, 80), (90, 120)):
            other, larger = (low * 2**0.5, low / 2**0.5), (np.sqrt(low * high),) * 2
            for place, (wide, tall) in enumerate([(low, low), *([other, larger] if tf else [larger, other])]):
                less = 0.05 if tf and low == 60 and place == 0 else 0.0
                begin = [(x - wide / 2) / 300 + less, (y - tall / 2) / 200 + less]
                end = [(x + wide / 2) / 300 - less, (y + tall / 2) / 200 - less]
                wanted += begin[::-1] + end[::-1] if yx else begin + end
    np.testing.assert_allclose(got[0, 0], wanted, rtol=1e-5, atol=1e-6)
