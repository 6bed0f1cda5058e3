"""Verify: the same inputs through every runtime there is, blob by blob, in the order the net makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.runtimes import RUNTIMES, Blobs, Runtime, run_onnx_file
from converters.subject import Subject
from prototxt_gen import layers
from prototxt_gen.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.ir import Layer, show

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-4
"""How far a blob may be from the reference, relative to the reference's largest value."""
DECIDING = frozenset({"ArgMax", "Accuracy", "Threshold", "DetectionOutput", "Proposal", "Filter", "DetectionEvaluate"})
"""Types whose top jumps where numbers are nearly equal, so that rounding before them may show as another answer."""


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
    """It differs, but given the reference's own bottoms the layer makes the reference's top."""

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
    """`verified`: at least two runtimes ran, and all that ran agree."""

    net: str
    layers: int
    reference: str
    outcomes: tuple[Outcome, ...] = field(default=())

    @property
    def compared(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.state == "ran" and one.runtime != self.reference]

    @property
    def verified(self) -> bool:
        return bool(self.compared) and all(one.ok and one.comparisons for one in self.compared)

    @property
    def worst(self) -> float:
        """The largest error of all."""
        return max((c.error for one in self.compared for c in one.comparisons), default=0.0)


def verify(
    subject: Subject, inputs: Mapping[str, Array], against: Sequence[str] = tuple(RUNTIMES), model: Path | None = None
) -> Report:
    """Run the runtimes named, in the order of RUNTIMES, and compare them with the first that ran.

    `model` is an ONNX file to run instead of a fresh conversion.
    """
    unknown = [name for name in against if name not in RUNTIMES]
    if unknown:
        raise PrototxtGenError(f"there is no runtime {unknown[0]!r}; there are {', '.join(RUNTIMES)}")
    runs: dict[str, Runtime] = {name: run for name, run in RUNTIMES.items() if name in against}
    if model is not None and "onnx" in runs:
        runs["onnx"] = lambda _, fed: run_onnx_file(model, fed, list(subject.last_values()))
    made: dict[str, Blobs] = {}
    states: dict[str, Outcome] = {}
    for name, run in runs.items():
        states[name] = _attempt(name, run, subject, inputs, made)
    return _report(subject, states, made)


def _attempt(name: str, run: Runtime, subject: Subject, inputs: Mapping[str, Array], made: dict[str, Blobs]) -> Outcome:
    try:
        made[name] = run(subject, inputs)
    except RuntimeMissingError as error:
        return Outcome(name, "not run", str(error))
    except PrototxtGenError as error:
        return Outcome(name, "cannot", str(error))
    return Outcome(name, "ran")


def _report(subject: Subject, states: Mapping[str, Outcome], made: Mapping[str, Blobs]) -> Report:
    reference = next(iter(made), "")
    outcomes = tuple(
        Outcome(name, "ran", "", tuple(compare(subject, made[reference], made[name])))
        if name in made and name != reference
        else outcome
        for name, outcome in states.items()
    )
    return Report(subject.net.source or subject.net.name, len(subject.net.layers), reference, outcomes)


def compare(subject: Subject, reference: Blobs, other: Blobs) -> list[Comparison]:
    """Compare all blobs that both have, in the order the net makes them; inputs are left out."""
    return list(_Comparer(subject, reference, other).all())


class _Comparer:
    def __init__(self, subject: Subject, reference: Blobs, other: Blobs) -> None:
        self.subject, self.reference, self.other = subject, reference, other
        self.last = subject.last_values()
        self.excused: set[str] = set()
        """Blobs that differ after a near tie."""

    def all(self) -> Iterator[Comparison]:
        makers = {value.blob: layer for layer in self.subject.net.layers for value in layer.tops}
        fed = set(self.subject.sources)
        for blob, value in self.last.items():
            if value not in fed and blob in makers and blob in self.reference and blob in self.other:
                made = self._one(makers[blob], blob)
                self.excused |= {blob} if made.excused else set()
                yield made

    def _one(self, layer: Layer, blob: str) -> Comparison:
        tolerance = max(TOLERANCE, layers.room(layer).tolerance)
        error, note = difference(self.reference[blob], self.other[blob])
        why = self._excuse(layer, blob) if error > tolerance else ""
        return Comparison(blob, layer.name, layer.type, error, tolerance, why or note, bool(why))

    def _excuse(self, layer: Layer, blob: str) -> str:
        """Return why a difference is no error: a near tie decided otherwise; or an empty text.

        The layer is run alone on either runtime's own bottoms: only if it then makes either's own top is it excused.
        """
        if any(value.blob in self.excused for value in layer.bottoms):
            return "follows from a near tie above"
        if layer.type not in DECIDING and not (layer.type == "Pooling" and len(layer.tops) > 1):
            return ""
        agree = self._makes_its_own(layer, blob, self.reference) and self._makes_its_own(layer, blob, self.other)
        return "a near tie: on either's own bottoms the layer makes either's own top" if agree else ""

    def _makes_its_own(self, layer: Layer, blob: str, blobs: Blobs) -> bool:
        if any(value.blob not in blobs or self.last[value.blob] != value for value in layer.bottoms):
            return False  # not known, or written over since
        made = _alone(self.subject, layer, [blobs[value.blob] for value in layer.bottoms])
        index = [value.blob for value in layer.tops].index(blob)
        return difference(blobs[blob], made[index])[0] <= TOLERANCE


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


def _alone(subject: Subject, layer: Layer, bottoms: Sequence[Array]) -> list[Array]:
    """Return the tops that the layer's PyTorch module makes of these bottoms."""
    import torch

    room = layers.room(layer)
    module = room.torch(layer, [tuple(bottom.shape) for bottom in bottoms]).eval()
    if blobs := subject.weights.of(layer.name):
        room.load(module, blobs)
    with torch.no_grad():
        made = module(*(torch.from_numpy(np.ascontiguousarray(bottom, "float32")) for bottom in bottoms))
    tops = made if isinstance(made, (tuple, list)) else (made,)
    return [top.numpy() for top in tops]
