"""PyTorch modules of BatchNorm and BN: torch's batch normalisation with Caffe's rules for the moving statistics."""

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


def with_plain_strides(image: Tensor) -> Tensor:
    """Return the image batch, copied if it is channels-last but has unusual strides on axes of size 1.

    Elementwise operations on a single image create such strides. On the CPU, torch's batch normalisation treats the
    tensor as channels-last and its gradient treats it as contiguous, so the result is wrong without a warning.
    """
    if image.dim() != 4 or image.is_contiguous() or not image.is_contiguous(memory_format=torch.channels_last):
        return image
    _, channels, height, width = image.shape
    plain = (height * width * channels, 1, width * channels, channels)
    return image if image.stride() == plain else image.contiguous()


class RunningNorm(_BatchNorm):
    """Batch normalisation over axis 1, for any number of axes. Subclasses update the moving statistics in `average`.

    `eps` is added to the moving variance, `batch_eps` to the variance of the batch.
    """

    running_mean: Tensor
    running_var: Tensor
    averages_in_test: bool
    """Whether a module in eval mode that normalises by the batch also updates the moving statistics, as Caffe does."""
    is_torch_batch_norm = True
    """Whether torch's BatchNorm class computes the same from the moving statistics."""

    def __init__(self, channels: int, eps: float, affine: bool, statistics: str) -> None:
        super().__init__(channels, eps=eps, affine=affine)
        self.batch_eps, self.statistics = eps, statistics
        self.averages_in_test = False

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of axes from two on, as Caffe does."""

    def average(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """Update the moving statistics with the mean and the biased variance of a batch.

        `values` is the number of values per channel.
        """

    def forward(self, input: Tensor) -> Tensor:
        if self.statistics == RUNNING or (self.statistics == PHASE and not self.training):
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        top, mean, variance, values = self.by_batch(input)
        if self.training or self.averages_in_test:
            with torch.no_grad():
                self.average(mean, variance, values)
        return top

    def by_batch(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        """Normalise by the statistics of the batch.

        Returns the top, the batch's mean and biased variance, and the number of values per channel. Torch computes the
        statistics as running statistics with momentum 1, with the unbiased variance; this saves a pass over the input.
        """
        values = input.numel() // input.shape[1]
        if values == 1:
            return self.by_single_value(input)
        input = with_plain_strides(input)
        mean, unbiased = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        top = functional.batch_norm(input, mean, unbiased, self.weight, self.bias, True, 1.0, self.batch_eps)
        return top, mean, unbiased * ((values - 1) / values), values

    def by_single_value(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        """Do the same for a single value per channel, which Caffe accepts and torch refuses.

        The value is its own mean, so the top is the bias, and the bottom gets no gradient. On some CPUs torch's kernels
        multiply the value by 1 / sqrt(eps) before they subtract the mean, with rounding errors of that size.
        """
        mean, zeros = input.detach().reshape(-1), torch.zeros_like(self.running_mean)
        top = functional.batch_norm(input - input, zeros, torch.ones_like(zeros), self.weight, self.bias)
        return top, mean, zeros, 1

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.batch_eps}, affine={self.affine}, statistics={self.statistics!r}"


class AveragingNorm(RunningNorm):
    """BatchNorm's module. `factor` is the third blob; running_mean and running_var are divided by it.

    The sums that Caffe stores as blobs are kept too, because multiplying by the factor would not restore them exactly.
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
            new_share = 1 - self.fraction if self.steps > 1 else 1.0
            self.steps += 1
            self.running_mean.lerp_(mean, new_share)
            self.running_var.lerp_(variance, new_share)
            return
        variance = variance * (values / (values - 1)) if values > 1 else variance
        self.factor.mul_(self.fraction).add_(1)
        self.put_sums(self.mean_sum * self.fraction + mean, self.variance_sum * self.fraction + variance)

    def put_sums(self, mean: Tensor, variance: Tensor) -> None:
        """Set the sums of mean and variance, and the averages from them. `factor` must have been set before."""
        self.mean_sum.copy_(mean)
        self.variance_sum.copy_(variance)
        for running, average in zip((self.running_mean, self.running_var), self.averages(), strict=True):
            running.copy_(average)

    def averages(self) -> tuple[Tensor, Tensor]:
        """Return the averages of mean and variance that the sums and the factor give."""
        inverse = torch.where(self.factor == 0, 0, 1 / self.factor)
        return self.mean_sum * inverse, self.variance_sum * inverse

    def stored(self) -> tuple[Tensor, Tensor]:
        """Return the blobs of mean and variance.

        They are the sums, or products with the factor if the averages were changed directly.
        """
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
    """BatchNorm with eps added to the standard deviation instead of the variance; torch has no such module.

    Source: synopsys-caffe src/caffe/layers/batch_norm_layer.cpp Forward_cpu, Backward_cpu.
    """

    is_torch_batch_norm = False

    def forward(self, input: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        if self.statistics not in (RUNNING, PHASE) or (self.statistics == PHASE and self.training):
            axes = [axis for axis in range(input.dim()) if axis != 1]
            mean, variance = input.mean(axes), input.var(axes, correction=0)
            if self.training or self.averages_in_test:
                with torch.no_grad():
                    self.average(mean, variance, input.numel() // input.shape[1])
        # Caffe's gradient, that of plain batch normalisation, treats what eps adds to the variance as a constant
        added = (2 * variance.sqrt() * self.eps + self.eps**2).detach()
        shape = (-1,) + (1,) * (input.dim() - 2)
        top = (input - mean.view(shape)) / (variance + added).sqrt().view(shape)
        return top * self.weight.view(shape) + self.bias.view(shape) if self.affine else top


class MergedNorm(RunningNorm):
    """BN's module. `statistic` says what the fourth blob holds; running_var is a variance in both cases."""

    def __init__(self, channels: int, eps: float, old_share: float, statistics: str) -> None:
        super().__init__(channels, eps, True, statistics)
        self.old_share, self.statistic = old_share, INVERSE_STD
        # at most 1, so that the variance of an inverse standard deviation of 1 is not negative
        self.eps = min(eps, 1.0)
        self.running_var.fill_(1 - self.eps)

    def average(self, mean: Tensor, variance: Tensor, values: int) -> None:
        self.running_mean.lerp_(mean, 1 - self.old_share)
        if self.statistic == VARIANCE:
            self.running_var.lerp_(variance, 1 - self.old_share)
            return
        old = (self.running_var.double() + self.eps).rsqrt().to(variance.dtype)  # exactly what `dump` returns
        moved = old.lerp((variance + self.batch_eps).rsqrt(), 1 - self.old_share)
        self.running_var.copy_(moved.double().pow(-2) - self.eps)


@cache
def as_torch_class(module_class: type[RunningNorm], axes: int) -> type[RunningNorm]:
    """Return a subclass of `module_class` and of torch's BatchNorm1d, 2d or 3d for this number of axes.

    Code that looks for torch's class with isinstance then finds the module.
    """
    torch_class: type[nn.Module] = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(axes, nn.BatchNorm1d)
    return type(torch_class.__name__, (module_class, torch_class), {})


def put(target: Tensor, array: Array) -> None:
    """Copy an array into a tensor with the same number of elements."""
    with torch.no_grad():
        target.copy_(torch.from_numpy(array.reshape(tuple(target.shape)).copy()))
