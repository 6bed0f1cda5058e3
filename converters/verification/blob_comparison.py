"""Blobs of two runtimes, one by one: what differs, and whether that is a fault or rounding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from converters.common.net_with_weights import Subject
from converters.verification.runtimes import Blobs, run_torch
from prototxt_gen import layers
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.ir import Layer, Value, show
from prototxt_gen.net.lowering_checks import is_fed

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-4
"""How far a blob may be from the reference, relative to the reference's largest value."""
PLACES = 1e-9
"""What a mask of places is held to: the neighbouring pixel of a large map is another place, if a small difference."""
MOST_CARRIED = 1e-2
"""A deep net may carry rounding beyond the tolerance, without a fault in any layer; beyond this it is no excuse."""
MOST_MOVED = 10
"""How many times what rounding does to a blob in PyTorch, in single precision against double, is rounding elsewhere."""
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


class Rounding:
    """How far rounding alone moves each blob of a net on these inputs; looked into where something differs."""

    def __init__(self, subject: Subject, inputs: Mapping[str, Array]) -> None:
        self.subject, self.inputs = subject, inputs

    def of(self, blob: str) -> float:
        """Return how far PyTorch in single precision is from double; 0 where it cannot run in double."""
        single, double = self._runs
        return difference(double[blob], single[blob])[0] if blob in double and blob in single else 0.0

    @cached_property
    def _runs(self) -> tuple[Blobs, Blobs]:
        try:
            return run_torch(self.subject, self.inputs), run_torch(self.subject, self.inputs, double=True)
        except (RuntimeError, PrototxtGenError):  # a module that keeps numbers of one precision; or no PyTorch
            return {}, {}


def compare(reference: Blobs, other: Blobs, rounding: Rounding) -> list[Comparison]:
    """Compare all blobs that both have, in the order the net makes them; inputs are left out."""
    return list(_Comparer(reference, other, rounding).all())


class _Comparer:
    def __init__(self, reference: Blobs, other: Blobs, rounding: Rounding) -> None:
        self.reference, self.other, self.rounding = reference, other, rounding
        self.subject = subject = rounding.subject
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
        tolerance = PLACES if _is_mask(layer, value) else max(TOLERANCE, layers.layer_type_of(layer).tolerance)
        error, note = difference(self.reference[value.blob], self.other[value.blob])
        why = self._excuse(layer, value, error) if error > tolerance else ""
        return Comparison(value.blob, layer.name, layer.type, error, tolerance, why or note, bool(why))

    def _excuse(self, layer: Layer, value: Value, error: float) -> str:
        """Return why a difference is no error of this layer; or an empty text.

        The layer is run alone on either runtime's own bottoms: only if it then makes either's own top is it excused.
        What follows from a near tie is excused where they are not shown, too, and so is what rounding may do to it.
        """
        alone = [self._makes_its_own(value, blobs) for blobs in (self.reference, self.other)]
        if False in alone:
            return ""
        if self._follows(layer):
            self.after_tie.add(value.blob)
            return "follows from a near tie above"
        if None not in alone and _decides(layer):
            self.after_tie.add(value.blob)
            return "a near tie: on either's own bottoms the layer makes either's own top"
        if None not in alone and error <= MOST_CARRIED:
            return "rounding carried on: on either's own bottoms the layer makes either's own top"
        moved = self.rounding.of(value.blob)
        return f"rounding alone moves it by {moved:.1e}" if error <= MOST_MOVED * moved else ""

    def _makes_its_own(self, value: Value, blobs: Blobs) -> bool | None:
        """Whether the layer makes a runtime's own top of its own bottoms; None where these are not shown."""
        made = self._alone(value, blobs)
        tolerance = 10 * layers.layer_type_of(self.makers[value]).tolerance
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
        (layer.type == "Pooling" and len(layer.tops) > 1)
        or layer.type in DECIDING
        or layers.layer_type_of(layer).sized_by_data
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

    layer_type = layers.layer_type_of(layer)
    module = layer_type.torch(layer, [tuple(bottom.shape) for bottom in bottoms]).eval()
    if blobs := subject.weights.of(layer.name):
        layer_type.load(module, blobs)
    with torch.no_grad():
        made = module(*(torch.from_numpy(np.asarray(bottom, "float32", order="C")) for bottom in bottoms))
    tops = made if isinstance(made, (tuple, list)) else (made,)
    return [top.detach().numpy() for top in tops]
