"""Layer types of FlowNet 2, compared with loops that follow its GPU code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError
from tests.layers.test_utility_layers import layer_of
from tests.layers.test_window_layers import both

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(17)


def correlated(x: Array, y: Array, pad: int, kernel: int, reach: int, s1: int, s2: int, subtracts: bool) -> Array:
    x, y = (np.pad(one, ((0, 0), (0, 0), (pad, pad), (pad, pad))) for one in (x, y))
    border = reach + (kernel - 1) // 2
    high, wide = (int(np.ceil((size - 2 * border) / s1)) for size in x.shape[2:])
    radius, batch = reach // s2, x.shape[0]
    grid = 2 * radius + 1
    top = np.zeros((batch, grid * grid, high, wide))
    for item, channel, row, column in np.ndindex(*top.shape):
        x1, y1 = column * s1 + reach, row * s1 + reach
        s2o, s2p = (channel % grid - radius) * s2, (channel // grid - radius) * s2
        total = 0.0
        for j, i, c in np.ndindex(kernel, kernel, x.shape[1]):
            one, other = x[item, c, y1 + j, x1 + i], y[item, c, y1 + s2p + j, x1 + s2o + i]
            total += abs(one - other) if subtracts else one * other
        top[item, channel, row, column] = total / (kernel * kernel * x.shape[1])
    return top


@pytest.mark.parametrize("subtracts", [False, True])
@pytest.mark.parametrize(
    ("pad", "kernel", "reach", "s1", "s2"), [(4, 1, 4, 1, 2), (3, 3, 3, 2, 2), (0, 1, 1, 2, 1), (2, 1, 3, 1, 2)]
)
def test_correlation_matches_flownet2(pad: int, kernel: int, reach: int, s1: int, s2: int, subtracts: bool) -> None:
    x, y = RNG.normal(size=(2, 2, 3, 7, 8))
    params = f"pad: {pad} kernel_size: {kernel} max_displacement: {reach} stride_1: {s1} stride_2: {s2}"
    kind = "SUBTRACT" if subtracts else "MULTIPLY"
    (got,) = both("Correlation", [x, y], f"correlation_param {{ {params} correlation_type: {kind} }}")
    np.testing.assert_allclose(got, correlated(x, y, pad, kernel, reach, s1, s2, subtracts), rtol=1e-4, atol=1e-5)


def test_correlation_refuses_wrong_parameters() -> None:
    x = np.zeros((1, 2, 4, 4))
    with pytest.raises(NetError, match="an odd kernel_size"):
        both("Correlation", [x, x], "correlation_param { kernel_size: 2 max_displacement: 1 }")
    with pytest.raises(NetError, match="do not fit in its padded bottom 1x2x4x4"):
        both("Correlation", [x, x], "correlation_param { kernel_size: 1 max_displacement: 2 }")


def test_channel_norm_matches_numpy() -> None:
    import torch

    x = RNG.normal(size=(2, 3, 4, 5))
    x[0, :, 0, 0] = 0
    (got,) = both("ChannelNorm", [x], "")
    np.testing.assert_allclose(got, np.sqrt((x * x).sum(1, keepdims=True)), rtol=1e-5)
    module = layers.all_layer_types()["ChannelNorm"].torch(layer_of("ChannelNorm", [x.shape]), [x.shape])
    bottom, diff = torch.from_numpy(x).requires_grad_(), RNG.normal(size=(2, 1, 4, 5))
    module(bottom).backward(torch.from_numpy(diff))
    length = np.sqrt((x * x).sum(1, keepdims=True))
    assert bottom.grad is not None
    np.testing.assert_allclose(bottom.grad.numpy(), diff * x / (length + 1e-9), rtol=1e-6, atol=1e-12)


def warped(image: Array, flow: Array, fill: float) -> Array:
    """The loop of the fork, which is the same on its CPU and GPU."""
    top = np.full(image.shape, fill)
    high, wide = image.shape[2:]
    for n, y, x in np.ndindex(image.shape[0], high, wide):
        x2, y2 = x + flow[n, 0, y, x], y + flow[n, 1, y, x]
        if x2 >= 0 and y2 >= 0 and x2 < wide and y2 < high:
            left, above = int(x2), int(y2)
            right, below = min(left + 1, wide - 1), min(above + 1, high - 1)
            a, b = x2 - left, y2 - above
            one, other = image[n, :, above, left], image[n, :, above, right]
            third, fourth = image[n, :, below, left], image[n, :, below, right]
            top[n, :, y, x] = (1 - a) * (1 - b) * one + a * (1 - b) * other + (1 - a) * b * third + a * b * fourth
    return top


@pytest.mark.parametrize("fill", ["ZERO", "NOT_A_NUMBER"])
def test_flow_warp_matches_flownet2(fill: str) -> None:
    image, flow = RNG.normal(size=(2, 3, 5, 6)), RNG.normal(size=(2, 2, 5, 6)).astype("float32") * 2
    flow[0, :, 0, 0], flow[0, 0, 1, 1], flow[1, 0, 4, 5], flow[1, 1, 4, 5] = 0, np.nan, 0.75, 0.5
    (got,) = both("FlowWarp", [image, flow], f"flow_warp_param {{ fill_value: {fill} }}")
    wanted = warped(image, flow.astype("float64"), 0.0 if fill == "ZERO" else np.nan)
    assert 0 < (np.nan_to_num(wanted) == 0).sum() < wanted.size
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_flow_warp_has_gradients_for_the_flow() -> None:
    """Compared with small differences; Backward_cpu has the exact derivative, also where a border pixel is repeated."""
    import torch

    image, flow = torch.rand(1, 2, 4, 4, dtype=torch.float64), torch.rand(1, 2, 4, 4, dtype=torch.float64)
    shapes = [tuple(image.shape), tuple(flow.shape)]
    module = layers.all_layer_types()["FlowWarp"].torch(layer_of("FlowWarp", shapes), shapes)
    both_ways = (image.requires_grad_(), (flow * 0.8 + 0.1).detach().requires_grad_())
    assert torch.autograd.gradcheck(module, both_ways, eps=1e-6, atol=1e-5)
