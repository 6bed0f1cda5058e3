"""Verify: the same inputs through every runtime there is, blob by blob, in the order the net makes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converters.runtimes import RUNTIMES, Blobs, Runtime
from converters.subject import Subject
from prototxt_gen import layers
from prototxt_gen.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.ir import Layer, Value, show
from prototxt_gen.lowering import is_fed

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-4
"""How far a blob may be from the reference, relative to the reference's largest value."""
PLACES = 1e-9
"""What a mask of places is held to: the neighbouring pixel of a large map is another place, if a small difference."""
MOST_CARRIED = 1e-2
"""A deep net may carry rounding beyond the tolerance, without a fault in any layer; beyond this it is no excuse."""
DECIDING = frozenset({"ArgMax", "Accuracy", "Threshold", "Filter"})
"""Types whose top jumps where numbers are nearly equal, so that rounding before them may show as another answer.

So do all whose top is sized by the data.
"""


@dataclass(frozen=True)
class Comparison:
    """One blob of one runtime against the reference. `error` is relative to the reference's largest finite value."""

    blob: str
    layer: str
    type: str
    error: float
    tolerance: float
    note: str = ""
    excused: bool = False
    """It differs, but not by any fault of this layer: `note` says why."""

    @property
    def ok(self) -> bool:
        return self.excused or (self.error <= self.tolerance)


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


class NotVerifiedError(PrototxtGenError):
    """What was converted does not compute what the net does; `report` says where they differ first."""

    def __init__(self, report: Report) -> None:
        from converters.report import sentences

        differs = any(not one.ok for one in report.compared)
        what = "the conversion is wrong" if differs else "the conversion could not be verified"
        super().__init__("\n  ".join([f"{report.net}: {what}, nothing is written", *sentences(report)]))
        self.report = report


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
    return _report(subject, states, made, list(others or {}))


def _attempt(name: str, run: Runtime, subject: Subject, inputs: Mapping[str, Array], made: dict[str, Blobs]) -> Outcome:
    try:
        made[name] = run(subject, inputs)
    except RuntimeMissingError as error:
        return Outcome(name, "not run", str(error))
    except PrototxtGenError as error:
        return Outcome(name, "cannot", str(error))
    return Outcome(name, "ran")


def _report(
    subject: Subject, states: Mapping[str, Outcome], made: Mapping[str, Blobs], needed: Collection[str]
) -> Report:
    reference = next(iter(made), "")
    agreed: dict[str, Blobs] = {}
    outcomes = []
    for name, outcome in states.items():
        if name in made and name != reference:
            found = compare(subject, made[reference], made[name])
            outcome = Outcome(name, "ran", "", tuple(_second_look(subject, found, made[name], agreed)))
            if outcome.ok:
                agreed[name] = made[name]
        outcomes.append(outcome)
    source = subject.net.source or subject.net.name
    return Report(source, len(subject.net.layers), reference, tuple(outcomes), frozenset(needed))


def _second_look(
    subject: Subject, found: Sequence[Comparison], blobs: Blobs, agreed: Mapping[str, Blobs]
) -> Iterator[Comparison]:
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


def compare(subject: Subject, reference: Blobs, other: Blobs) -> list[Comparison]:
    """Compare all blobs that both have, in the order the net makes them; inputs are left out."""
    return list(_Comparer(subject, reference, other).all())


class _Comparer:
    def __init__(self, subject: Subject, reference: Blobs, other: Blobs) -> None:
        self.subject, self.reference, self.other = subject, reference, other
        self.last = subject.last_values()
        self.makers = {value: layer for layer in subject.net.layers for value in layer.tops}
        self.after_tie: set[str] = set()

    def all(self) -> Iterator[Comparison]:
        fed = set(self.subject.sources)
        for blob, value in self.last.items():
            if value in fed or value not in self.makers:
                continue
            if blob in self.reference and blob in self.other:
                yield self._one(self.makers[value], value)
            elif self._follows(self.makers[value]):  # not shown, but what comes after it is
                self.after_tie.add(blob)

    def _follows(self, layer: Layer) -> bool:
        return any(bottom.blob in self.after_tie for bottom in layer.bottoms)

    def _one(self, layer: Layer, value: Value) -> Comparison:
        tolerance = PLACES if _is_mask(layer, value) else max(TOLERANCE, layers.room(layer).tolerance)
        error, note = difference(self.reference[value.blob], self.other[value.blob])
        why = self._excuse(layer, value, error) if error > tolerance else ""
        return Comparison(value.blob, layer.name, layer.type, error, tolerance, why or note, bool(why))

    def _excuse(self, layer: Layer, value: Value, error: float) -> str:
        """Return why a difference is no error of this layer; or an empty text.

        The layer is run alone on either runtime's own bottoms: only if it then makes either's own top is it excused.
        What follows from a near tie is excused where they are not shown, too.
        """
        alone = [self._makes_its_own(value, blobs) for blobs in (self.reference, self.other)]
        if False in alone:
            return ""
        if self._follows(layer):
            self.after_tie.add(value.blob)
            return "follows from a near tie above"
        if None in alone:
            return ""
        if _decides(layer):
            self.after_tie.add(value.blob)
            return "a near tie: on either's own bottoms the layer makes either's own top"
        carried = "rounding carried on: on either's own bottoms the layer makes either's own top"
        return carried if error <= MOST_CARRIED else ""

    def _makes_its_own(self, value: Value, blobs: Blobs) -> bool | None:
        """Whether the layer makes a runtime's own top of its own bottoms; None where these are not shown."""
        made = self._alone(value, blobs)
        tolerance = 10 * layers.room(self.makers[value]).tolerance
        return None if made is None else difference(blobs[value.blob], made)[0] <= min(tolerance, TOLERANCE)

    def _alone(self, value: Value, blobs: Blobs) -> Array | None:
        """Return what the layer makes of a runtime's own bottoms; bottoms that were written over are made anew."""
        layer = self.makers[value]
        if is_fed(layer):
            return None
        bottoms = []
        for bottom in layer.bottoms:
            found = self._bottom(bottom, blobs)
            if found is None:
                return None
            bottoms.append(found)
        return run_layer(self.subject, layer, bottoms)[layer.tops.index(value)]

    def _bottom(self, value: Value, blobs: Blobs) -> Array | None:
        """Return a value, made anew if written over; None where the runtime does not show such blobs, as with files."""
        if value.blob not in blobs:
            return None
        if self.last[value.blob] == value:
            return blobs[value.blob]
        return self._alone(value, blobs) if value in self.makers else None


def _is_mask(layer: Layer, value: Value) -> bool:
    return layer.type == "Pooling" and value in layer.tops[1:]


def _decides(layer: Layer) -> bool:
    return (
        (layer.type == "Pooling" and len(layer.tops) > 1) or layer.type in DECIDING or layers.room(layer).sized_by_data
    )


def difference(reference: Array, other: Array) -> tuple[float, str]:
    """Return the largest difference relative to the reference's largest finite value, and what is peculiar about it.

    NaN against NaN, and an infinity against the same, count as equal; NaN against a number as infinitely far.
    """
    if reference.shape != other.shape:
        if [dim for dim in reference.shape if dim != 1] != [dim for dim in other.shape if dim != 1]:
            return np.inf, f"shapes differ, {show(reference.shape)} and {show(other.shape)}"
        other = other.reshape(reference.shape)
    if not reference.size:
        return 0.0, "empty"
    a, b = reference.astype("float64"), other.astype("float64")
    finite = np.isfinite(a) & np.isfinite(b)
    same = finite | (a == b) | (np.isnan(a) & np.isnan(b))
    if not same.all():
        return np.inf, f"{int((~same).sum())} of {a.size} numbers are NaN or infinite in one alone"
    if not finite.any():
        return 0.0, "NaN or infinite throughout"
    largest = float(np.abs(a[finite]).max())
    gap = float(np.abs(a[finite] - b[finite]).max())
    note = "" if finite.all() else f"{int((~finite).sum())} of {a.size} numbers are NaN or infinite in both"
    return gap / max(largest, 1e-20) if gap else 0.0, note


def run_layer(subject: Subject, layer: Layer, bottoms: Sequence[Array]) -> list[Array]:
    """Return the tops that a layer's PyTorch module makes of these bottoms."""
    import torch

    room = layers.room(layer)
    module = room.torch(layer, [tuple(bottom.shape) for bottom in bottoms]).eval()
    if blobs := subject.weights.of(layer.name):
        room.load(module, blobs)
    with torch.no_grad():
        made = module(*(torch.from_numpy(np.asarray(bottom, "float32", order="C")) for bottom in bottoms))
    tops = made if isinstance(made, (tuple, list)) else (made,)
    return [top.detach().numpy() for top in tops]
