"""Gradient checkpointing: the net is cut into segments whose inner blobs are recomputed in the backward pass.

This takes less memory and more time. Only the blobs that later segments use are kept. Recomputation draws the same
random numbers (`torch.utils.checkpoint`) and does not update moving statistics again (`frozen_statistics`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.runtime.torch_net import Blobs, LayerCall, TorchNet, run_calls

SEGMENT_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""The numbers of segments that are tried."""
BlobSizes = Mapping[int, int]
"""The number of elements of each blob, by index."""


@dataclass(frozen=True)
class Segment:
    """Consecutive layer calls, with the indices of the blobs they read from before and leave for later segments.

    `freed` are inputs that no later segment uses. `norms` are the batch normalisation modules of the segment.
    """

    calls: list[LayerCall]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    freed: tuple[int, ...]
    norms: tuple[Any, ...]
    recompute: bool
    """Whether the inner blobs are recomputed in the backward pass instead of being kept."""

    def run(self, blobs: Blobs) -> None:
        """Run the segment, reading from and writing to the blobs of a forward pass."""
        inputs = [blobs[index] for index in self.inputs]
        if self.recompute and torch.is_grad_enabled():
            contexts = partial(_forward_and_recompute_contexts, self.norms)
            outputs = checkpoint(self._run, *inputs, use_reentrant=False, context_fn=contexts)
        else:
            outputs = self._run(*inputs)
        for index, blob in zip(self.outputs, outputs, strict=True):
            blobs[index] = blob
        for index in self.freed:
            blobs[index] = None

    def _run(self, *inputs: Any) -> tuple[Any, ...]:
        blobs: Any = dict(zip(self.inputs, inputs, strict=True))
        run_calls(self.calls, blobs)
        return tuple(blobs[index] for index in self.outputs)


def _forward_and_recompute_contexts(
    norms: Sequence[Any],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), frozen_statistics(norms)


@contextmanager
def frozen_statistics(norms: Sequence[Any]) -> Iterator[None]:
    """Stop updates of moving statistics inside the block, so that a recomputed batch counts only once."""
    for norm in norms:
        norm.average = lambda *statistics: None
    try:
        yield
    finally:
        for norm in norms:
            del norm.average


def cut_into_segments(net: TorchNet, calls: Sequence[LayerCall], kept: set[int]) -> list[Segment]:
    """Return the calls as segments, cut where few blobs are alive, with the lowest peak memory of SEGMENT_COUNTS.

    `kept` are the indices of the blobs that must remain at the end. Raises UnsupportedError for layers that carry a
    state from batch to batch, because recomputation would change it.
    """
    for lowered in net.lowered_layers:
        if any(hasattr(module, "persistent_state") for module in lowered.module.modules()):
            layer = lowered.layer
            raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): it carries a state from batch to "
                                   "batch, and cannot be trained with gradient checkpointing")  # fmt: skip
    alive = _alive_blobs(calls, kept)
    sizes = {index: math.prod(net.analysis.shapes[value]) for value, index in net.blob_indices.items()}
    plans = [_cut_positions(calls, alive, sizes, count) for count in SEGMENT_COUNTS]
    cuts = min(plans, key=lambda cuts: _peak_elements(calls, alive, sizes, cuts))
    ranges = list(zip([0, *cuts], [*cuts, len(calls)], strict=True))
    return [_segment(net, calls, alive, start, end, end < len(calls)) for start, end in ranges]


def _alive_blobs(calls: Sequence[LayerCall], kept: set[int]) -> list[set[int]]:
    """Return, for the position before each call and for the end, the blobs computed before it and used after it."""
    used_later, alive = set(kept), [set(kept)]
    for call in reversed(calls):
        used_later = (used_later - set(call.tops)) | set(call.bottoms)
        alive.append(set(used_later))
    return alive[::-1]


def _total_size(indices: set[int], sizes: BlobSizes) -> int:
    return sum(sizes[index] for index in indices)


def _tops_size(calls: Sequence[LayerCall], sizes: BlobSizes) -> int:
    return sum(sizes[top] for call in calls for top in call.tops)


def _cut_positions(calls: Sequence[LayerCall], alive: Sequence[set[int]], sizes: BlobSizes, count: int) -> list[int]:
    """Return about `count` - 1 positions to cut at.

    After each 1/count of the total blob size, the cut is at the nearby position with the fewest elements alive.
    """
    share, cuts, start = _tops_size(calls, sizes) / count, [], 0
    while _tops_size(calls[start:], sizes) > 1.5 * share:
        size, candidates = 0, list[int]()
        for position in range(start + 1, len(calls)):
            size += _tops_size(calls[position - 1 : position], sizes)
            if size > 1.5 * share and candidates:
                break
            if size >= 0.5 * share or position == len(calls) - 1:
                candidates.append(position)
        if not candidates:
            break
        start = min(candidates, key=lambda position: _total_size(alive[position], sizes))
        cuts.append(start)
    return cuts


def _peak_elements(calls: Sequence[LayerCall], alive: Sequence[set[int]], sizes: BlobSizes, cuts: Sequence[int]) -> int:
    """Return the largest number of elements in memory: the blobs alive at all cuts, and all blobs of one segment."""
    kept: set[int] = set().union(*(alive[cut] for cut in cuts))
    ranges = zip([0, *cuts], [*cuts, len(calls)], strict=True)
    return _total_size(kept, sizes) + max(_tops_size(calls[start:end], sizes) for start, end in ranges)


def _segment(
    net: TorchNet, calls: Sequence[LayerCall], alive: Sequence[set[int]], start: int, end: int, recompute: bool
) -> Segment:
    segment_calls = list(calls[start:end])
    computed = {top for call in segment_calls for top in call.tops}
    inputs = {bottom for call in segment_calls for bottom in call.bottoms} - computed
    outputs = alive[end] & computed
    modules = (module for lowered in net.lowered_layers[start:end] for module in lowered.module.modules())
    norms = tuple(module for module in modules if hasattr(module, "average"))
    return Segment(segment_calls, tuple(inputs), tuple(outputs), tuple(inputs - alive[end]), norms, recompute)
