"""A net in segments, whose inner blobs are computed again for the gradient, not kept: less memory, more time.

Only the blobs that are alive between segments are kept. Random numbers are drawn again alike, and moving statistics
move once (`torch.utils.checkpoint`, and `held`).
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
from prototxt_gen.runtime.torch_net import Blobs, Task, TorchNet, work

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""How many segments are tried."""
Sizes = Mapping[int, int]
"""Elements of each blob."""


@dataclass(frozen=True)
class Segment:
    """Tasks in a row, the numbers of the blobs they take from before and give to what comes after."""

    tasks: list[Task]
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    dropped: tuple[int, ...]
    norms: tuple[Any, ...]
    again: bool
    """Whether its inner blobs are computed again for the gradient."""

    def work(self, blobs: Blobs) -> None:
        """Run the segment on the blobs of a run."""
        taken = [blobs[number] for number in self.takes]
        if self.again and torch.is_grad_enabled():
            made = checkpoint(self._run, *taken, use_reentrant=False, context_fn=partial(_contexts, self.norms))
        else:
            made = self._run(*taken)
        for number, blob in zip(self.gives, made, strict=True):
            blobs[number] = blob
        for number in self.dropped:
            blobs[number] = None

    def _run(self, *taken: Any) -> tuple[Any, ...]:
        blobs: Any = dict(zip(self.takes, taken, strict=True))
        work(self.tasks, blobs)
        return tuple(blobs[number] for number in self.gives)


def _contexts(norms: Sequence[Any]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), held(norms)


@contextmanager
def held(norms: Sequence[Any]) -> Iterator[None]:
    """Keep moving statistics where they are: a batch counts once, however often it is computed."""
    for norm in norms:
        norm.average = lambda *statistics: None
    try:
        yield
    finally:
        for norm in norms:
            del norm.average


def segments(net: TorchNet, tasks: Sequence[Task], wanted: set[int]) -> list[Segment]:
    """Cut the tasks where few blobs are alive, into as many segments as make the greatest memory least.

    UnsupportedError for layers that carry a state from batch to batch, which computing them twice would change.
    """
    for step in net.steps:
        if any(hasattr(module, "carried") for module in step.module.modules()):
            raise UnsupportedError(f"layer {step.layer.name!r} ({step.layer.type}): it carries a state from batch to "
                                   "batch, and cannot be trained with gradient checkpointing")  # fmt: skip
    alive = _alive(tasks, wanted)
    sizes = {number: math.prod(net.analysis.shapes[value]) for value, number in net.numbers.items()}
    plans = [_cuts(tasks, alive, sizes, count) for count in COUNTS]
    best = min(plans, key=lambda cuts: _peak(tasks, alive, sizes, cuts))
    pairs = list(zip([0, *best], [*best, len(tasks)], strict=True))
    return [_segment(net, tasks, alive, start, end, end < len(tasks)) for start, end in pairs]


def _alive(tasks: Sequence[Task], wanted: set[int]) -> list[set[int]]:
    """Return, for every place before a task and the end, the blobs made before it and taken after it."""
    later, needed = set(wanted), [set(wanted)]
    for task in reversed(tasks):
        later = (later - set(task.tops)) | set(task.bottoms)
        needed.append(set(later))
    return needed[::-1]


def _size(numbers: set[int], sizes: Sizes) -> int:
    return sum(sizes[number] for number in numbers)


def _inner(tasks: Sequence[Task], sizes: Sizes) -> int:
    return sum(sizes[top] for task in tasks for top in task.tops)


def _cuts(tasks: Sequence[Task], alive: Sequence[set[int]], sizes: Sizes, count: int) -> list[int]:
    """Return about `count` - 1 places: after each share of the blobs, the place nearby where least is alive."""
    share, cuts, start = _inner(tasks, sizes) / count, [], 0
    while _inner(tasks[start:], sizes) > 1.5 * share:
        passed, near = 0, list[int]()
        for place in range(start + 1, len(tasks)):
            passed += _inner(tasks[place - 1 : place], sizes)
            if passed > 1.5 * share and near:
                break
            if passed >= 0.5 * share or place == len(tasks) - 1:
                near.append(place)
        if not near:
            break
        start = min(near, key=lambda place: _size(alive[place], sizes))
        cuts.append(start)
    return cuts


def _peak(tasks: Sequence[Task], alive: Sequence[set[int]], sizes: Sizes, cuts: Sequence[int]) -> int:
    """Return the greatest number of elements held: the blobs at all cuts, and everything in one segment."""
    kept: set[int] = set().union(*(alive[cut] for cut in cuts))
    pairs = zip([0, *cuts], [*cuts, len(tasks)], strict=True)
    return _size(kept, sizes) + max(_inner(tasks[start:end], sizes) for start, end in pairs)


def _segment(
    net: TorchNet, tasks: Sequence[Task], alive: Sequence[set[int]], start: int, end: int, again: bool
) -> Segment:
    mine = list(tasks[start:end])
    made = {top for task in mine for top in task.tops}
    takes = {bottom for task in mine for bottom in task.bottoms} - made
    gives = alive[end] & made
    norms = (m for step in net.steps[start:end] for m in step.module.modules() if hasattr(m, "average"))
    return Segment(mine, tuple(takes), tuple(gives), tuple(takes - alive[end]), tuple(norms), again)
