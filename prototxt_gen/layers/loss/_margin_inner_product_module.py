"""PyTorch module of MarginInnerProduct (SphereFace), with Caffe's gradients, which are not the derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def margin_function(kind: str, cos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ψ(cos), the coefficient of its gradient along the weight, and that along -x/|x|².

    Source: wy1iu/sphereface tools/caffe-sphereface/src/caffe/layers/margin_inner_product_layer.cpp Forward_cpu,
        Backward_cpu (coeff_w and, without the factor -1/|x|, coeff_x).
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


class _MarginProduct(torch.autograd.Function):
    """Products of x with weights of length 1, with a margin for the label's class, blended with the plain products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, kind: str, blend: float) -> Tensor:
        length, row = x.square().sum(1).sqrt(), torch.arange(len(x), device=x.device)
        plain = x @ weight.t()
        value, along_weight, along_x = margin_function(kind, plain[row, labels] / length)
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
        label_grad = grad[row, labels][:, None]
        other_grads = grad.clone()
        other_grads[row, labels] = 0
        label_direction = along_weight[:, None] * weight[labels] + along_x[:, None] * x
        margin_grad = other_grads @ weight + label_grad * label_direction
        return (margin_grad + ctx.blend * grad @ weight) / (1 + ctx.blend), grad.t() @ x, None, None, None


class MarginInnerProduct(nn.Module):
    """Computes the products. Each forward pass also normalises the rows of the weight and reduces `blend`."""

    def __init__(
        self, shape: tuple[int, int], axis: int, kind: str, decay: tuple[float, float, float, float], iteration: int
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))
        self.axis, self.kind, self.decay, self.iteration = axis, kind, decay, iteration
        self.persistent_state = iteration

    def reset(self) -> None:
        """Restart the decay of the plain products' weight at the first iteration."""
        self.persistent_state = self.iteration

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        base, gamma, power, lambda_min = self.decay
        self.persistent_state += 1
        blend = max(base * (1 + gamma * self.persistent_state) ** -power, lambda_min)
        with torch.no_grad():
            self.weight.div_(self.weight.square().sum(1, keepdim=True).sqrt())
        flat, targets = x.flatten(self.axis), labels.detach().flatten().long()
        rows = flat.flatten(0, -2)
        if self.kind == "SINGLE":
            top = rows @ self.weight.t()
        else:
            top = _MarginProduct.apply(rows, self.weight, targets, self.kind, blend)  # type: ignore[no-untyped-call]
        return top.reshape(*flat.shape[:-1], -1), x.new_tensor([blend])
