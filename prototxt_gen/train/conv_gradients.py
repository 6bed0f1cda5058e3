"""Gradients of filters summed a few images at a time, as Caffe sums them.

The gradient of a filter adds up a number for each place in each image. oneDNN, with which PyTorch convolves on a CPU,
adds them all to one float32, which rounds the later ones away: for a hundred images of 32x32 that is ten times as far
from the exact sum as Caffe's, which sums each image by itself. Where training is sensitive, it parts the two runs.

Source: src/caffe/layers/conv_layer.cpp ConvolutionLayer::Backward_cpu.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MOST_PLACES = 8192
"""So many places are summed at once."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def sum_as_caffe(net: nn.Module) -> None:
    """Let the convolutions of a net, those with zeros around their inputs, sum their gradients so."""
    for module in net.modules():
        if isinstance(module, _CONVOLUTIONS) and not isinstance(module.padding, str) and module.padding_mode == "zeros":
            module.forward = _Forward(module)  # type: ignore[assignment]


class _Forward:
    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        m = self.module
        window = (m.stride, m.padding, m.dilation, m.groups)
        made: Tensor = _Convolution.apply(x, m.weight, m.bias, window)  # type: ignore[no-untyped-call]
        return made


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, window: tuple[Any, ...]) -> Tensor:
        stride, padding, dilation, groups = window
        ctx.save_for_backward(x, weight)
        ctx.window = (stride, padding, dilation, False, (0,) * len(stride), groups)
        return torch.convolution(x, weight, bias, *ctx.window)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, top: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        back = torch.ops.aten.convolution_backward
        x_grad = back(top, x, weight, None, *ctx.window, (True, False, False))[0] if for_x else None
        images = max(1, MOST_PLACES // max(1, top[0, 0].numel()))
        parts = list(zip(torch.split(top, images), torch.split(x, images), strict=True))
        weight_grad = bias_grad = None
        if for_weight:
            sums = (back(t, part, weight, None, *ctx.window, (False, True, False))[1] for t, part in parts)
            weight_grad = _added(sums)
        if for_bias:
            bias_grad = _added(t.flatten(2).sum((0, 2)) for t, _ in parts)
        return x_grad, weight_grad, bias_grad, None


def _added(sums: Any) -> Tensor:
    """Return the sum of tensors, made one after the other and added in place."""
    total: Tensor = next(sums)
    for one in sums:
        total += one
    return total
