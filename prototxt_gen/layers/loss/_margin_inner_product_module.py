"""P"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def with_margin(kind: str, cos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for cosines, what takes their place, and how far its gradient goes along the weight and along -x/|x|².

    Source: wy1iu/sphereface tools/caffe-sphereface/src/caffe/layers/margin_inner_product_layer.cpp Forward_cpu,
    Backward_cpu (coeff_w and, but for -1/|x|, coeff_x).
    """
    sign, square = cos.sign(), cos.square()
    if kind == "DOUBLE":
        return 2 * sign * square - 1, 4 * sign * cos, 2 * sign * square + 1
    if kind == "TRIPLE":
        outer, cube = (cos.abs() - 0.5).sign(), cos**3
        shift = sign * (1 + outer) - 2
        return outer * (4 * cube - 3 * cos) + shift, outer * (12 * square - 3), 8 * outer * cube - shift
    inner, quartic = sign * (2 * square - 1).sign(), cos**4
    shift = 2 * sign + inner - 3
    value = inner * (8 * quartic - 8 * square + 1) + shift
    return value, inner * (32 * cos**3 - 16 * cos), inner * (24 * quartic - 8 * square - 1) - shift


class _Margin(torch.autograd.Function):
    """The products of x and weights of length 1, that of the label with a margin, `blend` of it without."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, kind: str, blend: float) -> Tensor:
        length, row = x.square().sum(1).sqrt(), torch.arange(len(x), device=x.device)
        plain = x @ weight.t()
        value, along_weight, along_x = with_margin(kind, plain[row, labels] / length)
        top = plain.clone()
        top[row, labels] = length * value
        along_x = -along_x / length
        norm = (along_weight.square() + along_x.square()).sqrt()
        ctx.save_for_backward(x, weight, labels, along_weight / norm, along_x / norm)
        ctx.blend = blend
        return (top + blend * plain) / (1 + blend)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, labels, along_weight, along_x = ctx.saved_tensors
        grad, row = grads[0], torch.arange(len(x), device=x.device)
        own = grad[row, labels][:, None]
        others = grad.clone()
        others[row, labels] = 0
        with_it = others @ weight + own * (along_weight[:, None] * weight[labels] + along_x[:, None] * x)
        return (with_it + ctx.blend * grad @ weight) / (1 + ctx.blend), grad.t() @ x, None, None, None


class MarginInnerProduct(nn.Module):
    """Each run makes the rows of the weights one long, and the share without margin smaller."""

    def __init__(
        self, shape: tuple[int, int], axis: int, kind: str, decay: tuple[float, float, float, float], iteration: int
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))
        self.axis, self.kind, self.decay, self.iteration = axis, kind, decay, iteration
        self.carried = iteration

    def reset(self) -> None:
        """Begin anew with the share of the first iteration."""
        self.carried = self.iteration

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        base, gamma, power, least = self.decay
        self.carried += 1
        blend = max(base * (1 + gamma * self.carried) ** -power, least)
        with torch.no_grad():
            self.weight.div_(self.weight.square().sum(1, keepdim=True).sqrt())
        flat, targets = x.flatten(self.axis), labels.detach().flatten().long()
        rows = flat.flatten(0, -2)
        if self.kind == "SINGLE":
            top = rows @ self.weight.t()
        else:
            top = _Margin.apply(rows, self.weight, targets, self.kind, blend)  # type: ignore[no-untyped-call]
        return top.reshape(*flat.shape[:-1], -1), x.new_tensor([blend])
