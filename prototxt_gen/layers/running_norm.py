"""What BatchNorm and BN share: torch's batch normalisation with Caffe's own ways of averaging, and its ONNX forms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from converters.graph import Graph

    Array = np.ndarray[Any, Any]

PHASE, RUNNING, BATCH = "phase", "running", "batch"
"""Which statistics normalise: those of the batch in training and the moving ones else, or always the one kind."""


@cache
def running_norm() -> Any:
    """Return the class that both modules extend."""
    import torch
    from torch.nn import functional
    from torch.nn.modules.batchnorm import _BatchNorm

    class RunningNorm(_BatchNorm):
        """Batch normalisation over axis 1, of any number of axes; `average` says how the moving statistics move.

        `eps` is added to the moving variance, `batch_eps` to that of the batch.
        """

        running_mean: Tensor
        running_var: Tensor

        def __init__(self, channels: int, eps: float, affine: bool, statistics: str) -> None:
            super().__init__(channels, eps=eps, affine=affine)
            self.batch_eps, self.statistics = eps, statistics

        def _check_input_dim(self, input: Tensor) -> None:
            """Caffe takes any number of axes from two."""

        def average(self, mean: Tensor, variance: Tensor, values: int) -> None:
            """Move the statistics on, given the batch's: mean, biased variance, values in each channel."""

        def forward(self, input: Tensor) -> Tensor:
            if self.statistics == RUNNING or (self.statistics == PHASE and not self.training):
                return functional.batch_norm(
                    input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
                )
            top, mean, variance, values = self.by_batch(input)
            if self.training:
                with torch.no_grad():
                    self.average(mean, variance, values)
            return top

        def by_batch(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
            """Return the input normalised by its own statistics, its mean and biased variance, values in each channel.

            torch hands the statistics out as running ones that forget all that was before; it gives the variance
            unbiased. Taking them there saves a pass over the input.
            """
            mean, unbiased = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
            # not functional.batch_norm, which refuses the single value in a channel that Caffe takes
            top = torch.batch_norm(
                input, self.weight, self.bias, mean, unbiased, True, 1.0, self.batch_eps, torch.backends.cudnn.enabled
            )
            values = input.numel() // input.shape[1]
            return top, mean, unbiased * ((values - 1) / values) if values > 1 else torch.zeros_like(unbiased), values

        def extra_repr(self) -> str:
            return f"{self.num_features}, eps={self.batch_eps}, affine={self.affine}, statistics={self.statistics!r}"

    return RunningNorm


@cache
def as_stock(own: Any, axes: int) -> Any:
    """Return `own` as a subclass of torch's batch norm for so many axes: what looks for that class finds it."""
    from torch import nn

    stock: type[nn.Module] = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(axes, nn.BatchNorm1d)
    return type(stock.__name__, (own, stock), {})


def put(target: Tensor, array: Array) -> None:
    """Copy an array into a tensor of as many elements."""
    import torch

    with torch.no_grad():
        target.copy_(torch.from_numpy(array.reshape(tuple(target.shape)).copy()))


def onnx_running(g: Graph, bottom: str, eps: float, scale: Array, bias: Array, mean: Array, variance: Array) -> str:
    """Write a normalisation by given statistics, each of C numbers."""
    arrays = [array.reshape(-1).astype("float32") for array in (scale, bias, mean, variance)]
    return g.op("BatchNormalization", bottom, *arrays, epsilon=eps)


def onnx_batch(g: Graph, bottom: str, eps: float, affine: Sequence[Array]) -> str:
    """Write a normalisation by the batch's own statistics, then, where given, times a scale, plus a bias."""
    rank = len(g.shape(bottom))
    axes = g.const([axis for axis in range(rank) if axis != 1], "axes")
    centred = g.op("Sub", bottom, g.op("ReduceMean", bottom, axes))
    variance = g.op("ReduceMean", g.op("Mul", centred, centred), axes)
    top = g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, g.const(eps, "eps"))))
    for kind, array in zip(("Mul", "Add"), affine, strict=False):
        top = g.op(kind, top, array.reshape(-1, *[1] * (rank - 2)))
    return top
