"""PyTorch module of DenseBlock."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from prototxt_gen.ir import Shape

EPS = 1e-5


class DenseBlock(nn.Module):
    """The steps of a dense block. Its tensors are named as the roles of the blobs."""

    factor: Tensor

    def __init__(
        self, shapes: Mapping[str, Shape], transitions: int, inner: bool, share: float, dropout: float
    ) -> None:
        super().__init__()
        self.transitions, self.inner, self.share, self.dropout = transitions, inner, share, dropout
        for role, shape in shapes.items():
            if "mean" in role or "variance" in role or role == "factor":
                self.register_buffer(role, torch.zeros(shape))
            else:
                self.register_parameter(role, nn.Parameter(torch.zeros(shape)))

    def blob(self, role: str) -> Tensor:
        """Return the tensor of a role."""
        tensor: Tensor = getattr(self, role)
        return tensor

    def normalised(self, x: Tensor, kind: str, step: int) -> Tensor:
        """Return batch normalisation and ReLU of `x`, with the blobs of one step."""
        mean, variance, scale, bias = (
            self.blob(f"{kind}{role}{step}").flatten() for role in ("mean", "variance", "scale", "bias")
        )
        if not self.training:
            inverse = torch.where(self.factor == 0, 1.0, 1 / self.factor)
            mean, variance = mean * inverse, variance * inverse
        return functional.batch_norm(x, mean, variance, scale, bias, self.training, self.share, EPS).relu()

    def forward(self, x: Tensor) -> Tensor:
        for step in range(self.transitions):
            new = self.normalised(x, "", step)
            if self.inner:
                new = functional.conv2d(new, self.blob(f"inner_filter{step}"))
                new = self.normalised(new, "inner_", step)
            # the fork asks cuDNN for a true convolution, so the filter is rotated by 180 degrees
            new = functional.conv2d(new, self.blob(f"filter{step}").flip(2, 3), padding=1)
            x = torch.cat([x, functional.dropout(new, self.dropout, self.training)], 1)
        return x
