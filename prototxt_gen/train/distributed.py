"""Training of one net in several processes with torch.distributed, started by torchrun.

Gradients and scores are averaged over the processes, as Caffe's P2PSync averages over its GPUs (src/caffe/parallel.cpp
NCCL::on_gradients_ready). Each process has its own moving statistics of batch normalisation, unless the statistics
are computed over the batches of all processes (`use_global_batch_statistics`); tests and snapshots use those of the
first process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


class Processes:
    """The processes that train together. With a single process, all methods return or leave their input unchanged."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self._started_group = self.ranks > 1 and not dist.is_initialized()
        if self._started_group:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        self.device = device

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors in place by their means over all processes."""
        if self.ranks == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.ranks
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the tensor over all processes."""
        if self.ranks > 1:
            dist.all_reduce(tensor)
        return tensor

    def max(self, number: int) -> int:
        """Return the largest of the numbers of all processes."""
        if self.ranks == 1:
            return number
        largest = torch.tensor([number], device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest.item())

    def broadcast_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors in place by those of the first process."""
        if self.ranks > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def close(self) -> None:
        """Leave the process group if this object joined it."""
        if self._started_group and dist.is_initialized():
            dist.destroy_process_group()
            self._started_group = False


class _AllReduceSum(torch.autograd.Function):
    """A differentiable sum over all processes; gradients are summed over all processes as well."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def use_global_batch_statistics(norm: nn.Module, ranks: int) -> None:
    """Make a batch normalisation module compute batch statistics over all processes (their batches have equal size)."""
    norm.by_batch = _by_global_batch(norm, ranks)  # type: ignore[assignment]


def _by_global_batch(norm: Any, ranks: int) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor, int]]:
    def by_batch(input: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        axes = [axis for axis in range(input.dim()) if axis != 1]
        broadcast_shape = [1, -1, *[1] * (input.dim() - 2)]
        count = ranks * input.numel() // input.shape[1]
        wide_input = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = _all_reduce_sum(wide_input.sum(axes)) / count
        centred = wide_input - mean.view(broadcast_shape)
        variance = _all_reduce_sum(centred.square().sum(axes)) / count
        scale = (variance + norm.batch_eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        top = centred * scale.view(broadcast_shape)
        if norm.bias is not None:
            top = top + norm.bias.view(broadcast_shape)
        return top.to(input.dtype), mean.detach(), variance.detach(), count

    return by_batch


def _all_reduce_sum(tensor: Tensor) -> Tensor:
    total: Tensor = _AllReduceSum.apply(tensor)  # type: ignore[no-untyped-call]
    return total
