"""Verify: the same inputs through every runtime there is, blob by blob, in the order the net makes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converters.common.net_with_weights import Subject
from converters.verification.blob_comparison import Comparison, Rounding, compare, difference
from converters.verification.runtimes import RUNTIMES, Blobs, Runtime
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one runtime: `ran`, `not run` (missing) or `cannot` (refused), and why."""

    runtime: str
    state: str
    reason: str = ""
    comparisons: tuple[Comparison, ...] = ()

    @property
    def ok(self) -> bool:
        return all(one.ok for one in self.comparisons)

    @property
    def worst(self) -> Comparison | None:
        """The comparison nearest to, or farthest beyond, its tolerance."""
        return max(self.comparisons, key=lambda one: (not one.ok, one.error / one.tolerance), default=None)

    @property
    def first_diverging(self) -> Comparison | None:
        return next((one for one in self.comparisons if not one.ok), None)


@dataclass(frozen=True)
class Report:
    """`verified`: at least two runtimes ran, all that were `needed` among them, and all that ran agree."""

    net: str
    layers: int
    reference: str
    outcomes: tuple[Outcome, ...] = ()
    needed: frozenset[str] = frozenset()

    @property
    def compared(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.state == "ran" and one.runtime != self.reference]

    @property
    def verified(self) -> bool:
        ran = {one.runtime for one in self.compared}
        return bool(ran) and self.needed <= ran and all(one.ok and one.comparisons for one in self.compared)

    @property
    def worst(self) -> float:
        """The largest error of all."""
        return max((c.error for one in self.compared for c in one.comparisons), default=0.0)


def verify(
    subject: Subject,
    inputs: Mapping[str, Array],
    against: Sequence[str] = tuple(RUNTIMES),
    others: Mapping[str, Runtime] | None = None,
) -> Report:
    """Run the runtimes named, in the order of RUNTIMES, then `others`; compare all with the first that ran."""
    unknown = [name for name in against if name not in RUNTIMES]
    if unknown:
        raise PrototxtGenError(f"there is no runtime {unknown[0]!r}; there are {', '.join(RUNTIMES)}")
    runs = {name: run for name, run in RUNTIMES.items() if name in against} | dict(others or {})
    made: dict[str, Blobs] = {}
    states: dict[str, Outcome] = {}
    for name, run in runs.items():
        states[name] = _attempt(name, run, subject, inputs, made)
    return _report(Rounding(subject, inputs), states, made, list(others or {}))


def _attempt(name: str, run: Runtime, subject: Subject, inputs: Mapping[str, Array], made: dict[str, Blobs]) -> Outcome:
    try:
        made[name] = run(subject, inputs)
    except RuntimeMissingError as error:
        return Outcome(name, "not run", str(error))
    except PrototxtGenError as error:
        return Outcome(name, "cannot", str(error))
    return Outcome(name, "ran")


def _report(
    rounding: Rounding, states: Mapping[str, Outcome], made: Mapping[str, Blobs], needed: Collection[str]
) -> Report:
    reference = next(iter(made), "")
    agreed: dict[str, Blobs] = {}
    outcomes = []
    for name, outcome in states.items():
        if name in made and name != reference:
            found = compare(made[reference], made[name], rounding)
            outcome = Outcome(name, "ran", "", tuple(_second_look(found, made[name], agreed)))
            if outcome.ok:
                agreed[name] = made[name]
        outcomes.append(outcome)
    net = rounding.subject.net
    return Report(net.source or net.name, len(net.layers), reference, tuple(outcomes), frozenset(needed))


def _second_look(found: Sequence[Comparison], blobs: Blobs, agreed: Mapping[str, Blobs]) -> Iterator[Comparison]:
    """Yield the comparisons; one that differs, of a runtime that shows only outputs, is held against the others too.

    A deep net may carry rounding beyond the tolerance. Which layer does so shows only where every blob does: in a
    runtime that was found to agree, layer by layer.
    """
    for one in found:
        yield next((_excused(one, name) for name, other in agreed.items() if _agrees(one, other, blobs)), one)


def _agrees(one: Comparison, agreed: Blobs, blobs: Blobs) -> bool:
    return not one.ok and one.blob in agreed and difference(agreed[one.blob], blobs[one.blob])[0] <= one.tolerance


def _excused(one: Comparison, runtime: str) -> Comparison:
    return replace(one, note=f"rounding carried on, as in {runtime}, with which it agrees", excused=True)
