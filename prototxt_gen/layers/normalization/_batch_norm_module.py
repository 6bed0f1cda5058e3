"""Torch's batch normalisation with Caffe's own ways of averaging: the modules of BatchNorm and BN."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from prototxt_gen.layers.normalization._batch_norm_shared import INVERSE_STD, PHASE, RUNNING, VARIANCE

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def plainly_laid(image: Tensor) -> Tensor:
    """Return the tensor, copied where it lies channels last and its axes of size 1 have strides of their own.

    Such strides come of elementwise work on one image. On the CPU torch's batch normalisation takes the tensor for one
    that lies channels last, and its gradient for one that does not: what comes out is wrong, and nothing says so.
    """
    if image.dim() != 4 or image.is_contiguous() or not image.is_contiguous(memory_format=torch.channels_last):
        return image
    _, channels, height, width = image.shape
    plain = (height * width * channels, 1, width * channels, channels)
    return image if image.stride() == plain else image.contiguous()


class RunningNorm(_BatchNorm):
    """Batch normalisation over axis 1, of any number of axes; `average` says how the moving statistics move.

    `eps` is added to the moving variance, `batch_eps` to that of the batch.
    """

    running_mean: Tensor
    running_var: Tensor
    stock = True
    """Whether torch's own class computes the same from the moving statistics."""

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
        values = input.numel() // input.shape[1]
        if values == 1:
            return self.by_single_value(input)
        input = plainly_laid(input)
        mean, unbiased = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        top = functional.batch_norm(input, mean, unbiased, self.weight, self.bias, True, 1.0, self.batch_eps)
        return top, mean, unbiased * ((values - 1) / values), values

    def by_single_value(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        """Do the same where a channel has one value, which Caffe takes and torch's own function refuses.

        The value is its own mean, so the top is the bias and no gradient goes down. torch's kernels would multiply the
        value by 1 / sqrt(eps) before they take the mean off, and leave rounding errors of that size, on some CPUs.
        """
        mean, zeros = input.detach().reshape(-1), torch.zeros_like(self.running_mean)
        top = functional.batch_norm(input - input, zeros, torch.ones_like(zeros), self.weight, self.bias)
        return top, mean, zeros, 1

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.batch_eps}, affine={self.affine}, statistics={self.statistics!r}"


class AveragingNorm(RunningNorm):
    """`factor` is the third blob; running_mean and running_var have it divided out.

    The blobs themselves, the sums, are kept beside: multiplying by the factor would not give them back to the bit.
    """

    factor: Tensor
    mean_sum: Tensor
    variance_sum: Tensor

    def __init__(self, channels: int, eps: float, merged: bool, fraction: float, statistics: str) -> None:
        super().__init__(channels, eps, merged, statistics)
        self.fraction, self.merged, self.steps = fraction, merged, 0
        self.running_var.zero_()
        self.register_buffer("factor", torch.zeros(1))
        for name in ("mean_sum", "variance_sum"):
            self.register_buffer(name, torch.zeros(channels), persistent=False)

    def average(self, mean: Tensor, variance: Tensor, values: int) -> None:
        if self.merged:  # Source: NVIDIA/caffe src/caffe/layers/batch_norm_layer.cpp Forward_cpu
            share = 1 - self.fraction if self.steps > 1 else 1.0
            self.steps += 1
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance, share)
            return
        variance = variance * (values / (values - 1)) if values > 1 else variance
        self.factor.mul_(self.fraction).add_(1)
        self.put_sums(self.mean_sum * self.fraction + mean, self.variance_sum * self.fraction + variance)

    def put_sums(self, mean: Tensor, variance: Tensor) -> None:
        """Take over the blobs of mean and variance; the factor must be there already."""
        self.mean_sum.copy_(mean)
        self.variance_sum.copy_(variance)
        for running, average in zip((self.running_mean, self.running_var), self.averages(), strict=True):
            running.copy_(average)

    def averages(self) -> tuple[Tensor, Tensor]:
        """Return what running_mean and running_var are, told by the sums."""
        by = torch.where(self.factor == 0, 0, 1 / self.factor)
        return self.mean_sum * by, self.variance_sum * by

    def stored(self) -> tuple[Tensor, Tensor]:
        """Return the blobs of mean and variance; from the averages, where these were set by other means."""
        running = self.running_mean, self.running_var
        if self.merged:
            return running
        same = all(map(torch.equal, running, self.averages()))
        return (self.mean_sum, self.variance_sum) if same else (running[0] * self.factor, running[1] * self.factor)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.mean_sum.copy_(self.running_mean * self.factor)
        self.variance_sum.copy_(self.running_var * self.factor)


class AddedAfterNorm(AveragingNorm):
    """Adds eps to the standard deviation, not to the variance, as no batch norm of torch does.

    Source: synopsys-caffe src/caffe/layers/batch_norm_layer.cpp Forward_cpu, Backward_cpu.
    """

    stock = False

    def forward(self, input: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        if self.statistics not in (RUNNING, PHASE) or (self.statistics == PHASE and self.training):
            axes = [axis for axis in range(input.dim()) if axis != 1]
            mean, variance = input.mean(axes), input.var(axes, correction=0)
            if self.training:
                with torch.no_grad():
                    self.average(mean, variance, input.numel() // input.shape[1])
        # what eps adds to the variance is constant to Caffe's gradient, which is that of plain batch norm
        more = (2 * variance.sqrt() * self.eps + self.eps**2).detach()
        shape = (-1,) + (1,) * (input.dim() - 2)
        top = (input - mean.view(shape)) / (variance + more).sqrt().view(shape)
        return top * self.weight.view(shape) + self.bias.view(shape) if self.affine else top


class MergedNorm(RunningNorm):
    """`statistic` is what the fourth blob means; running_var is a variance for both."""

    def __init__(self, channels: int, eps: float, old_share: float, statistics: str) -> None:
        super().__init__(channels, eps, True, statistics)
        self.old_share, self.statistic = old_share, INVERSE_STD
        self.eps = min(
            eps, 1.0
        )  # with which an inverse standard deviation of 1 is told by a variance that is none below 0
        self.running_var.fill_(1 - self.eps)

    def average(self, mean: Tensor, variance: Tensor, values: int) -> None:
        self.running_mean.lerp_(mean, 1 - self.old_share)
        if self.statistic == VARIANCE:
            self.running_var.lerp_(variance, 1 - self.old_share)
            return
        old = (self.running_var.double() + self.eps).rsqrt().to(variance.dtype)  # what `dump` writes, to the bit
        moved = old.lerp((variance + self.batch_eps).rsqrt(), 1 - self.old_share)
        self.running_var.copy_(moved.double().pow(-2) - self.eps)


@cache
def as_stock(own: type[RunningNorm], axes: int) -> type[RunningNorm]:
    """Return `own` as a subclass of torch's batch norm for so many axes: what looks for that class finds it."""
    stock: type[nn.Module] = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(axes, nn.BatchNorm1d)
    return type(stock.__name__, (own, stock), {})


def put(target: Tensor, array: Array) -> None:
    """Copy an array into a tensor of as many elements."""
    with torch.no_grad():
        target.copy_(torch.from_numpy(array.reshape(tuple(target.shape)).copy()))
