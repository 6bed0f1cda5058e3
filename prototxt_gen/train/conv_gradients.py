"""Gradients of convolution weights on the CPU, summed a few images at a time as Caffe does.

The gradient of a filter is a sum over all positions of all images. On a CPU, PyTorch's oneDNN adds all of them to one
float32, which rounds the later terms away: for a hundred images of 32x32 its result is ten times as far from the exact
sum as Caffe's, which sums each image separately. Where training is sensitive, the two runs then diverge.

Source: src/caffe/layers/conv_layer.cpp ConvolutionLayer::Backward_cpu.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MAX_POSITIONS_PER_SUM = 8192
"""The number of output positions whose gradients are summed at once."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def sum_filter_gradients_as_caffe(net: nn.Module) -> None:
    """Replace the forward function of the net's zero-padded convolutions by one whose backward pass sums in chunks."""
    for module in net.modules():
        if isinstance(module, _CONVOLUTIONS) and not isinstance(module.padding, str) and module.padding_mode == "zeros":
            module.forward = _ConvolutionForward(module)  # type: ignore[assignment]


class _ConvolutionForward:
    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        m = self.module
        window = (m.stride, m.padding, m.dilation, m.groups)
        top: Tensor = _ChunkedConvolution.apply(x, m.weight, m.bias, window)  # type: ignore[no-untyped-call]
        return top


class _ChunkedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, window: tuple[Any, ...]) -> Tensor:
        stride, padding, dilation, groups = window
        ctx.save_for_backward(x, weight)
        ctx.window = (stride, padding, dilation, False, (0,) * len(stride), groups)
        return torch.convolution(x, weight, bias, *ctx.window)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, top_grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        gradients_of = torch.ops.aten.convolution_backward
        x_grad = gradients_of(top_grad, x, weight, None, *ctx.window, (True, False, False))[0] if needs_x else None
        images = max(1, MAX_POSITIONS_PER_SUM // max(1, top_grad[0, 0].numel()))
        chunks = list(zip(torch.split(top_grad, images), torch.split(x, images), strict=True))
        weight_grad = bias_grad = None
        if needs_weight:
            mask = (False, True, False)
            weight_grad = _sum_in_place(gradients_of(t, part, weight, None, *ctx.window, mask)[1] for t, part in chunks)
        if needs_bias:
            bias_grad = _sum_in_place(t.flatten(2).sum((0, 2)) for t, _ in chunks)
        return x_grad, weight_grad, bias_grad, None


def _sum_in_place(terms: Iterator[Tensor]) -> Tensor:
    """Return the sum of tensors, computed one by one and added to the first in place."""
    total = next(terms)
    for term in terms:
        total += term
    return total
