"""Convolution gradients summed a few images at a time: equal to torch's, and closer to the exact values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prototxt_gen.train.conv_gradients import sum_filter_gradients_as_caffe

CONVOLUTIONS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "plain": (lambda: nn.Conv2d(3, 4, 3), (5, 3, 9, 8)),
    "stride and padding": (lambda: nn.Conv2d(3, 4, 5, stride=2, padding=(2, 1)), (3, 3, 9, 8)),
    "dilated, in groups": (lambda: nn.Conv2d(4, 6, 3, dilation=2, groups=2), (3, 4, 9, 8)),
    "no bias": (lambda: nn.Conv2d(3, 4, 1, bias=False), (3, 3, 5, 5)),
    "one axis": (lambda: nn.Conv1d(3, 4, 3), (3, 3, 9)),
    "three axes": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 5, 6)),
    "many places": (lambda: nn.Conv2d(1, 2, 3, padding=1), (4, 1, 100, 90)),
}


def gradients(module: nn.Module, x: Tensor, weights: Tensor) -> list[Tensor]:
    """Return the gradients of the input and of all parameters."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    (module(x) * weights).sum().backward()
    return [one.grad.clone().double() for one in (x, *module.parameters()) if one.grad is not None]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_chunked_gradients_equal_those_of_torch(name: str) -> None:
    make, shape = CONVOLUTIONS[name]
    module, x = make(), torch.randn(shape)
    top = torch.randn(module(x).shape)
    expected = gradients(module.double(), x.double(), top.double())
    before = module(x.double())
    module.float()
    sum_filter_gradients_as_caffe(module)
    assert torch.allclose(module(x).double(), before, atol=1e-5)
    for found, exact in zip(gradients(module, x, top), expected, strict=True):
        assert torch.allclose(found, exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


def test_chunked_gradients_are_closer_to_float64() -> None:
    """Their error is at most half of torch's, or 2e-6, where torch's own kernel is as exact as on old CPUs."""
    torch.manual_seed(1)
    module, x = nn.Conv2d(3, 16, 5, padding=2), torch.randn(100, 3, 32, 32)
    x, top = (one.to(memory_format=torch.channels_last) for one in (x, torch.randn(100, 16, 32, 32)))
    exact = gradients(module.double(), x.double(), top.double())
    plain = gradients(module.float(), x, top)
    sum_filter_gradients_as_caffe(module)
    summed = gradients(module, x, top)
    for one, other, truth in list(zip(summed, plain, exact, strict=True))[1:]:
        error, torchs, most = ((array - by).abs().max() for array, by in ((one, truth), (other, truth), (truth, 0)))
        assert error < max(torchs / 2, 2e-6 * most)


def test_inputs_without_requires_grad_get_no_gradient() -> None:
    module = nn.Conv2d(3, 4, 3)
    module.weight.requires_grad_(False)
    sum_filter_gradients_as_caffe(module)
    module(torch.randn(2, 3, 5, 5)).sum().backward()
    assert module.weight.grad is None
    assert module.bias is not None and module.bias.grad is not None
