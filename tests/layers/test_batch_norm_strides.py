"""Gradients of batch normalisation for images with unusual strides on axes of size 1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prototxt_gen.layers.normalization._batch_norm_module import RunningNorm
from prototxt_gen.layers.normalization._batch_norm_shared import PHASE

SHAPES = {
    "one image": ((1, 2, 5, 4), (2, 1, 8, 2)),
    "one row": ((1, 2, 1, 5), (10, 1, 7, 2)),
    "one column": ((3, 2, 4, 1), (8, 1, 2, 1)),
}
"""Shapes and strides."""


def _gradient(norm: RunningNorm, image: Tensor, top: Tensor) -> Tensor:
    bottom = image.detach().requires_grad_()
    (norm(bottom) * top).sum().backward()
    assert bottom.grad is not None
    return bottom.grad


@pytest.mark.parametrize("name", SHAPES)
def test_gradient_does_not_depend_on_strides_of_axes_of_size_one(name: str) -> None:
    shape, strides = SHAPES[name]
    torch.manual_seed(1)
    norm = RunningNorm(shape[1], 1e-5, True, PHASE).train()
    image, top = torch.randn(shape), torch.randn(shape)
    odd = torch.as_strided(image.permute(0, 2, 3, 1).contiguous().reshape(-1), shape, strides)
    assert torch.equal(odd, image)
    torch.testing.assert_close(_gradient(norm, odd, top), _gradient(norm, image, top), rtol=0, atol=1e-5)
