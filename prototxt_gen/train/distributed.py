"""Several processes that train one net: torch.distributed, as torchrun starts them.

Gradients and scores are averaged over the processes, as Caffe's P2PSync averages over its cards
(src/caffe/parallel.cpp NCCL::on_gradients_ready). Moving statistics of BN are each process's own, unless its batches'
statistics are taken over all (`synchronise`); the first process's count where nets are tested or saved.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


class Processes:
    """This process and its fellows; alone, all is as it is."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self._joined = self.ranks > 1 and not dist.is_initialized()
        if self._joined:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        self.device = device

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors by their means over all processes."""
        if self.ranks == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.ranks
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.ranks > 1:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, number: int) -> int:
        """Return the largest of all processes' numbers."""
        if self.ranks == 1:
            return number
        held = torch.tensor([number], device=self.device)
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return int(held.item())

    def follow_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors by those of the first process."""
        if self.ranks > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def leave(self) -> None:
        """End what joining began."""
        if self._joined and dist.is_initialized():
            dist.destroy_process_group()
            self._joined = False


class _Sum(torch.autograd.Function):
    """The sum over all processes, through which gradients come back summed as well."""

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


def synchronise(norm: nn.Module, ranks: int) -> None:
    """Let a batch normalisation take its batch's statistics over all processes, whose batches are of one size."""
    norm.by_batch = _over_all(norm, ranks)  # type: ignore[assignment]


def _over_all(norm: Any, ranks: int) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor, int]]:
    def by_batch(input: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        axes = [axis for axis in range(input.dim()) if axis != 1]
        around = [1, -1, *[1] * (input.dim() - 2)]
        values = ranks * input.numel() // input.shape[1]
        wide = input.float()
        mean = _sum(wide.sum(axes)) / values
        centred = wide - mean.view(around)
        variance = _sum(centred.square().sum(axes)) / values
        scale = (variance + norm.batch_eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        top = centred * scale.view(around)
        if norm.bias is not None:
            top = top + norm.bias.view(around)
        return top.to(input.dtype), mean.detach(), variance.detach(), values

    return by_batch


def _sum(tensor: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return total
