"""Layer types with windows or sizes beyond the laws: fields and types of forks, compared with NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from converters.onnx_export.onnx_graph import Graph
from prototxt_gen import layers
from tests.layers.test_laws import as_tuple
from tests.layers.test_utility_layers import layer_of, run_torch

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
RNG = np.random.default_rng(11)


def both(type_: str, bottoms: Sequence[Array], params: str, tops: int = 1, **blobs: Array) -> list[Array]:
    """Return the tops as PyTorch computes them, after checking that ONNX Runtime computes the same."""
    shapes = [b.shape for b in bottoms]
    got = run_torch(type_, bottoms, params, tops, blobs)
    for top, other in zip(got, run_onnx(type_, shapes, bottoms, params, tops, blobs), strict=True):
        np.testing.assert_allclose(other, top, rtol=1e-5, atol=1e-5)
    return got


def run_onnx(
    type_: str, declared: Sequence[Shape], bottoms: Sequence[Array], params: str, tops: int, blobs: dict[str, Array]
) -> list[Array]:
    import onnx
    import onnxruntime

    g, names = Graph(opset=20), [f"bottom{i}" for i in range(len(bottoms))]
    for name, shape in zip(names, declared, strict=True):
        g.set_shape(name, tuple(shape))
    stored = {role: blob.astype("float32") for role, blob in blobs.items()}
    made = as_tuple(layers.all_layer_types()[type_].onnx(g, layer_of(type_, declared, params, tops), names, stored))
    inputs, outputs = (
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in some]
        for some in (names, made)
    )
    graph = onnx.helper.make_graph(g.nodes, "case", inputs, outputs, g.initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got: list[Array] = session.run(None, {n: b.astype("float32") for n, b in zip(names, bottoms, strict=True)})
    return got


def pool_by_hand(x: Array, pool: str, begin: Shape, end: Shape, k: int, s: int, d: int, top: Shape) -> Array:
    """Caffe's loops over windows, with separate padding for each side."""
    made = np.zeros((*x.shape[:2], *top))
    size = x.shape[2:]
    for row, column in np.ndindex(*top):
        first = [row * s - begin[0], column * s - begin[1]]
        last = [min(f + (k - 1) * d + 1, size[i] + end[i]) for i, f in enumerate(first)]
        area = (last[0] - first[0]) * (last[1] - first[1])
        rows, columns = ([i for i in range(first[a], last[a], d) if 0 <= i < size[a]] for a in (0, 1))
        seen = x[:, :, rows][:, :, :, columns]
        made[:, :, row, column] = seen.max((2, 3)) if pool == "MAX" else seen.sum((2, 3)) / area
    return made


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize(
    ("params", "begin", "end", "k", "s", "top"),
    [
        ("kernel_size: 3 stride: 2 pad_l: 1 pad_r: 0 pad_t: 0 pad_b: 2 ceil_mode: false", (0, 1), (2, 0), 3, 2, (4, 3)),
        ("kernel_size: 3 stride: 2 pad_l: 2 pad_r: 1 pad_t: 1 pad_b: 1", (1, 2), (1, 1), 3, 2, (4, 4)),
        ("kernel_size: 2 stride: 1 pad_type: 1", (0, 0), (1, 1), 2, 1, (7, 6)),
        ("kernel_size: 3 stride: 2 pad_type: 1", (1, 0), (1, 1), 3, 2, (4, 3)),
    ],
)
def test_uneven_padding(pool: str, params: str, begin: Shape, end: Shape, k: int, s: int, top: Shape) -> None:
    x = RNG.standard_normal((2, 2, 7, 6))
    (got,) = both("Pooling", [x], f"pooling_param {{ pool: {pool} {params} }}")
    np.testing.assert_allclose(got, pool_by_hand(x, pool, begin, end, k, s, 1, top), rtol=1e-5, atol=1e-6)


def test_dilated_pooling() -> None:
    x = RNG.standard_normal((1, 2, 9, 8))
    (got,) = both("Pooling", [x], "pooling_param { kernel_size: 2 dilation: 4 }")
    np.testing.assert_allclose(got, pool_by_hand(x, "MAX", (0, 0), (0, 0), 2, 1, 4, (5, 4)), rtol=1e-6)


def test_stochastic_pooling_returns_the_expected_value_in_test() -> None:
    import torch

    x = np.abs(RNG.standard_normal((2, 3, 5, 6)))
    x[0, 0] = 0
    params, shape = "pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }", x.shape
    module = layers.all_layer_types()["Pooling"].torch(layer_of("Pooling", [shape], params), [shape]).eval()
    (by_onnx,) = run_onnx("Pooling", [shape], [x], params, 1, {})
    total = pool_by_hand(x, "AVE", (0, 0), (0, 0), 3, 2, 1, (2, 3))
    squares = pool_by_hand(x * x, "AVE", (0, 0), (0, 0), 3, 2, 1, (2, 3))
    wanted = squares / np.where(total > 0, total, 1)
    np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), wanted, rtol=1e-5)
    np.testing.assert_allclose(by_onnx, wanted, rtol=1e-5)


def test_stochastic_pooling_draws_in_proportion_in_training() -> None:
    import torch

    torch.manual_seed(5)
    shares = torch.tensor([[[[1.0, 2.0], [0.0, 5.0]]]])
    layer_type, layer = layers.all_layer_types()["Pooling"], layer_of("Pooling", [(1, 1, 2, 2)], STOCHASTIC)
    module = layer_type.torch(layer, [(1, 1, 2, 2)]).train()
    drawn = torch.stack([module(shares) for _ in range(4000)]).flatten()
    for value in (1.0, 2.0, 5.0):
        assert (drawn == value).float().mean().item() == pytest.approx(value / 8, abs=0.03)
    x = shares.clone().requires_grad_()
    top = module(x)
    top.backward()
    assert x.grad is not None
    assert torch.equal(x.grad, (shares == top).float())


STOCHASTIC = "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }"


@pytest.mark.parametrize(
    ("fork", "plain", "crop"),
    [
        ("pad_l: 1 pad_r: 2 pad_t: 0 pad_b: 3", "", ((0, 3), (1, 2))),
        ("dilation_h: 2 dilation_w: 1", "dilation: 2 dilation: 1", ((0, 0), (0, 0))),
    ],
)
def test_convolution_with_fields_of_forks(fork: str, plain: str, crop: tuple[Shape, Shape]) -> None:
    x, weight, bias = RNG.standard_normal((2, 3, 6, 7)), RNG.standard_normal((4, 3, 3, 2)), RNG.standard_normal(4)
    common = "num_output: 4 kernel_h: 3 kernel_w: 2 stride: 2"
    (got,) = both("Convolution", [x], f"convolution_param {{ {common} {fork} }}", weight=weight, bias=bias)
    padded = np.pad(x, ((0, 0), (0, 0), *crop))
    (wanted,) = run_torch(
        "Convolution", [padded], f"convolution_param {{ {common} {plain} }}", blobs={"weight": weight, "bias": bias}
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_deconvolution_with_uneven_padding() -> None:
    x, weight = RNG.standard_normal((1, 2, 4, 5)), RNG.standard_normal((2, 3, 3, 3))
    common = "num_output: 3 kernel_size: 3 stride: 2 bias_term: false"
    sides = "pad_l: 1 pad_r: 0 pad_t: 2 pad_b: 1"
    (got,) = both("Deconvolution", [x], f"convolution_param {{ {common} {sides} }}", weight=weight)
    (whole,) = run_torch("Deconvolution", [x], f"convolution_param {{ {common} }}", blobs={"weight": weight})
    np.testing.assert_allclose(got, whole[:, :, 2:-1, 1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("type_", ["ConvolutionDepthwise", "DepthwiseConvolution", "ConvolutionDepthWise"])
def test_depthwise_convolution_has_a_group_for_each_channel(type_: str) -> None:
    x, weight, bias = RNG.standard_normal((2, 3, 5, 6)), RNG.standard_normal((3, 1, 3, 3)), RNG.standard_normal(3)
    common = "convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 {} }}"
    (got,) = both(type_, [x], common.format(""), weight=weight, bias=bias)
    (wanted,) = run_torch("Convolution", [x], common.format("group: 3"), blobs={"weight": weight, "bias": bias})
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("params", "top"),
    [
        ("scale: 2", (6, 8)),
        ("", (6, 8)),
        ("scale: 2 pad_out_h: true", (5, 8)),
        ("scale_h: 3 scale_w: 2", (9, 8)),
        ("scale: 2 upsample_h: 7 upsample_w: 5", (7, 5)),
    ],
)
def test_unpooling_matches_segnet(params: str, top: Shape) -> None:
    x = RNG.standard_normal((2, 2, 3, 4))
    plane = top[0] * top[1]
    mask = np.stack([RNG.permutation(plane)[:12] for _ in range(4)]).reshape(x.shape)
    (got,) = both("Upsample", [x, mask], f"upsample_param {{ {params} }}")
    wanted = np.zeros((2, 2, plane))
    for n, c, h, w in np.ndindex(*x.shape):
        wanted[n, c, mask[n, c, h, w]] = x[n, c, h, w]
    np.testing.assert_allclose(got, wanted.reshape(2, 2, *top), rtol=1e-6)


def test_unpooling_inverts_pooling_and_has_gradients() -> None:
    import torch

    x = RNG.standard_normal((1, 2, 4, 6))
    top, mask = both("Pooling", [x], "pooling_param { kernel_size: 2 stride: 2 }", 2)
    (back,) = both("Upsample", [top, mask], "upsample_param { scale: 2 }")
    np.testing.assert_array_equal(back[back != 0], x.astype("float32")[back != 0])
    module = layers.all_layer_types()["Upsample"].torch(layer_of("Upsample", [top.shape] * 2), [top.shape] * 2)
    given, places = torch.from_numpy(top).requires_grad_(), torch.from_numpy(mask)
    weights = torch.arange(back.size, dtype=torch.float32).reshape(back.shape)
    module(given, places).backward(weights)
    assert given.grad is not None
    wanted = weights.flatten(2).gather(2, places.flatten(2).long()).reshape(top.shape)
    assert torch.equal(given.grad, wanted)


def test_shuffle_channel_interleaves_groups() -> None:
    x = np.arange(6.0).reshape(1, 6, 1, 1)
    (got,) = both("ShuffleChannel", [x], "shuffle_channel_param { group: 3 }")
    assert got.flatten().tolist() == [0, 2, 4, 1, 3, 5]


def reorg_by_hand(x: Array, s: int, reverse: bool, top: Shape) -> Array:
    """The loops of darknet over indices in memory."""
    _, channels, high, wide = x.shape
    flat, made, fewer = x.reshape(-1), np.zeros(x.size), channels // (s * s)
    for n, c, h, w in np.ndindex(*x.shape):
        near = w + wide * (h + high * (c + channels * n))
        offset = c // fewer
        far = w * s + offset % s + wide * s * (h * s + offset // s + high * s * (c % fewer + fewer * n))
        if reverse:
            made[far] = flat[near]
        else:
            made[near] = flat[far]
    return made.reshape(top)


@pytest.mark.parametrize(
    ("shape", "s", "reverse", "top"),
    [
        ((2, 4, 4, 6), 2, False, (2, 16, 2, 3)),
        ((2, 8, 3, 2), 2, True, (2, 2, 6, 4)),
        ((1, 9, 3, 6), 3, False, (1, 81, 1, 2)),
    ],
)
def test_reorg_matches_darknet(shape: Shape, s: int, reverse: bool, top: Shape) -> None:
    x = RNG.standard_normal(shape)
    (got,) = both("Reorg", [x], f"reorg_param {{ stride: {s} reverse: {str(reverse).lower()} }}")
    np.testing.assert_allclose(got, reorg_by_hand(x, s, reverse, top), rtol=1e-6)


@pytest.mark.parametrize("order", ["NHWC", "NCHW", "DCR", "CRD"])
def test_depth_to_space(order: str) -> None:
    x = RNG.standard_normal((2, 8, 2, 3))
    bottom = x.transpose(0, 2, 3, 1) if order == "NHWC" else x
    (got,) = both("DepthToSpace", [bottom], f'depth_to_space_param {{ block_size: 2 data_format: "{order}" }}')
    top = got.transpose(0, 3, 1, 2) if order == "NHWC" else got
    for n, c, h, w in np.ndindex(2, 2, 4, 6):
        row, column = h % 2, w % 2
        source = (c * 2 + row) * 2 + column if order == "CRD" else (row * 2 + column) * 2 + c
        assert top[n, c, h, w] == np.float32(x[n, source, h // 2, w // 2])


@pytest.mark.parametrize("stride", [1, 2, 3, 7, 41])
def test_repeated_pixels(stride: int) -> None:
    x = RNG.standard_normal((1, 2, 3, 50))
    for type_, params in (
        ("UpsampleDarknet", f"upsample_darknet_param {{ stride: {stride} }}"),
        ("Upsample", f"upsample_param {{ scale: {stride} }}"),
    ):
        (got,) = both(type_, [x], params)
        np.testing.assert_array_equal(got, x.astype("float32").repeat(stride, 2).repeat(stride, 3))


@pytest.mark.parametrize(
    ("params", "rows", "columns"),
    [
        ("scale_height: 2 scale_width: 3", [0, 0, 1, 1, 2, 2], [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3),
        ("output_height: 2 output_width: 3", [0, 1], [0, 1, 2]),
        ("output_height: 5 output_width: 7 align_corners: true", [0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 3, 3]),
        ("output_height: 2 output_width: 3 half_pixel_centers: true", [0, 2], [0, 2, 3]),
        ("output_height: 2 output_width: 3 half_pixel_onnx: true", [0, 1], [0, 1, 2]),
    ],
)
def test_nearest_neighbours(params: str, rows: list[int], columns: list[int]) -> None:
    x = RNG.standard_normal((2, 2, 3, 4)).astype("float32")
    (got,) = both("ResizeNearestNeighbor", [x], f'resize_nearest_neighbor_param {{ data_format: "NCHW" {params} }}')
    np.testing.assert_array_equal(got, x[:, :, rows][:, :, :, columns])


def test_pad_any_axes() -> None:
    x = RNG.standard_normal((2, 3, 4))
    (got,) = both("Pad", [x], "pad_param { paddings: [0, 1, 2, 0, 1, 3] constant_values: 0.5 }")
    np.testing.assert_allclose(got, np.pad(x, ((0, 1), (2, 0), (1, 3)), constant_values=0.5), rtol=1e-6)


def test_interp_with_sizes_of_forks() -> None:
    x = RNG.standard_normal((1, 2, 8, 9))
    (got,) = both("Interp", [x], "interp_param { shrink_factor: 3 zoom_factor: 4 }")
    (wanted,) = both("Interp", [x], "interp_param { height: 9 width: 9 }")
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    (got,) = both("Interp", [x], "interp_param { full_zoom_factor: 2 }")
    (wanted,) = both("Interp", [x], "interp_param { height: 16 width: 18 }")
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_gs_tiling(reverse: bool) -> None:
    small, large = RNG.standard_normal((2, 8, 2, 3)), np.zeros((2, 2, 4, 6))
    for n, c, h, w in np.ndindex(*small.shape):
        block = c // 2
        large[n, c % 2, h * 2 + block // 2, w * 2 + block % 2] = small[n, c, h, w]
    x, top = (small, large) if reverse else (large, small)
    (got,) = both("GSTiling", [x], f"gs_tiling_param {{ stride: 2 reverse: {str(reverse).lower()} }}")
    np.testing.assert_allclose(got, top, rtol=1e-6)


@pytest.mark.parametrize(
    "params",
    ["kernel_size: 3 stride: 2 pad: 1", "kernel_size: 3 pad_l: 2 pad_b: 1", "kernel_size: 2 stride: 2 pad_type: 1"],
)
def test_average_without_padding(params: str) -> None:
    """Synopsys's AVE_EXC_PAD divides the sum of a window by the number of its pixels inside the image."""
    image = RNG.normal(size=(2, 3, 7, 6))
    sums, ones = (
        both("Pooling", [x], f"pooling_param {{ pool: AVE {params} }}")[0] for x in (image, np.ones_like(image))
    )
    (got,) = both("Pooling", [image], f"pooling_param {{ pool: AVE_EXC_PAD {params} }}")
    np.testing.assert_allclose(got, sums / ones, rtol=1e-4, atol=1e-6)
