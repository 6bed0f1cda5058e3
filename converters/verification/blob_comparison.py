"""Comparing the blobs of two runtimes, and telling a wrong layer from rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from converters.common.net_with_weights import NetWithWeights
from converters.verification.rounding import MAX_ROUNDING_RATIO, RoundingEffect
from converters.verification.runtimes import Blobs
from prototxt_gen import layers
from prototxt_gen.ir import Layer, Value, show
from prototxt_gen.net.lowering_checks import is_input_layer

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-4
"""Largest allowed error of a blob, relative to the largest absolute value of the reference."""
MASK_TOLERANCE = 1e-9
"""Tolerance for pooling masks, which hold pixel indices: in a large map a neighbouring index differs very little."""
MAX_ACCUMULATED_ROUNDING = 1e-2
"""Largest error that can be excused as rounding that added up over many layers."""
_NOTHING_FINITE = "all numbers are NaN or infinite, so nothing is compared"
DISCONTINUOUS_TYPES = frozenset({"ArgMax", "Accuracy", "Threshold", "Filter"})
"""Types whose top jumps when numbers are nearly equal, so that rounding in layers above can change the top much.

The same holds for all types with `sized_by_data`.
"""


@dataclass(frozen=True)
class BlobComparison:
    """One blob of a runtime compared with the reference's.

    `error`: largest difference, relative to the largest absolute finite value of the reference. `layer` and `type` are
    those of the layer that computes the blob. `note`: anything special about the difference.
    """

    blob: str
    layer: str
    type: str
    error: float
    tolerance: float
    note: str = ""
    excused: bool = False
    """Whether the blob differs, but not because of an error in this layer; then `note` says why."""

    @property
    def ok(self) -> bool:
        return self.excused or (self.error <= self.tolerance)


def compare_blobs(reference: Blobs, other: Blobs, rounding: RoundingEffect) -> list[BlobComparison]:
    """Compare all blobs that both runtimes returned, in the order of the net's layers. Inputs are left out."""
    return list(_BlobComparer(reference, other, rounding).comparisons())


class _BlobComparer:
    def __init__(self, reference: Blobs, other: Blobs, rounding: RoundingEffect) -> None:
        self.reference, self.other, self.rounding = reference, other, rounding
        self.model = model = rounding.model
        self.last_values = model.last_values()
        self.producers = {value: layer for layer in model.net.layers for value in layer.tops}
        self.after_near_tie: set[str] = set()
        """Blobs that were excused for a near tie, and blobs computed from them."""

    def comparisons(self) -> Iterator[BlobComparison]:
        inputs = set(self.model.input_values)
        for blob, value in self.last_values.items():
            if value in inputs or value not in self.producers:
                continue
            if blob in self.reference and blob in self.other:
                yield self._compare(self.producers[value], value)
            elif self._follows_near_tie(self.producers[value]):  # not returned, but layers below it may be
                self.after_near_tie.add(blob)

    def _follows_near_tie(self, layer: Layer) -> bool:
        return any(bottom.blob in self.after_near_tie for bottom in layer.bottoms)

    def _compare(self, layer: Layer, value: Value) -> BlobComparison:
        tolerance = MASK_TOLERANCE if _is_mask(layer, value) else max(TOLERANCE, layers.layer_type_of(layer).tolerance)
        error, note = difference(self.reference[value.blob], self.other[value.blob])
        if note == _NOTHING_FINITE:
            return BlobComparison(value.blob, layer.name, layer.type, np.inf, tolerance, note)
        if np.isfinite(error) and error > tolerance:
            zero = self._compare_zeros(layer, value, tolerance)
            if zero is not None:
                return zero
        excuse = self._excuse(layer, value, error) if error > tolerance else ""
        return BlobComparison(value.blob, layer.name, layer.type, error, tolerance, excuse or note, bool(excuse))

    def _compare_zeros(self, layer: Layer, value: Value, tolerance: float) -> BlobComparison | None:
        """Compare a blob that is mathematically zero; None if it is not, or if a runtime has more than rounding there.

        Relative to its own size it would be all error. Its error is relative to the numbers that enter the layer.
        """
        zero = self.rounding.zero_blob(layer, value)
        one, other = (np.asarray(blobs[value.blob], "float64") for blobs in (self.reference, self.other))
        if zero is None or not (zero.holds(one) and zero.holds(other)):
            return None
        error = float(np.abs(one - other.reshape(one.shape)).max()) / zero.magnitude
        note = "mathematically zero, so relative to the numbers that enter the layer"
        return BlobComparison(value.blob, layer.name, layer.type, error, tolerance, note, error > tolerance)

    def _excuse(self, layer: Layer, value: Value, error: float) -> str:
        """Return why a difference is no error of this layer; empty if there is no excuse.

        The layer is run alone on the bottoms of each runtime. A top that this does not reproduce is never excused.
        If a runtime does not return the bottoms, only effects of a near tie above and of rounding are excused.
        """
        reproduced = [self._is_reproduced(value, blobs) for blobs in (self.reference, self.other)]
        if False in reproduced:
            return ""
        if self._follows_near_tie(layer):
            self.after_near_tie.add(value.blob)
            return "follows from a near tie above"
        if None not in reproduced and _is_discontinuous(layer):
            self.after_near_tie.add(value.blob)
            return "a near tie: the layer run alone on each runtime's bottoms gives that runtime's top"
        if None not in reproduced and error <= MAX_ACCUMULATED_ROUNDING:
            return "accumulated rounding: the layer run alone on each runtime's bottoms gives that runtime's top"
        effect = self.rounding.on_value(value) / max(_largest(self.reference[value.blob]), 1e-20)
        return f"rounding alone changes it by {effect:.1e}" if error <= MAX_ROUNDING_RATIO * effect else ""

    def _is_reproduced(self, value: Value, blobs: Blobs) -> bool | None:
        """Whether the layer, run alone on a runtime's bottoms, gives its top; None if the bottoms are not returned."""
        top = self._run_alone(value, blobs)
        tolerance = 10 * layers.layer_type_of(self.producers[value]).tolerance
        return None if top is None else difference(blobs[value.blob], top)[0] <= min(tolerance, TOLERANCE)

    def _run_alone(self, value: Value, blobs: Blobs) -> Array | None:
        """Return a value computed in PyTorch from a runtime's bottoms; None if a bottom is not available."""
        layer = self.producers[value]
        if is_input_layer(layer) or find_spec("torch") is None:
            return None
        bottoms = []
        for bottom in layer.bottoms:
            array = self._bottom_array(bottom, blobs)
            if array is None:
                return None
            bottoms.append(array)
        return run_layer_in_torch(self.model, layer, bottoms)[layer.tops.index(value)]

    def _bottom_array(self, value: Value, blobs: Blobs) -> Array | None:
        """Return a bottom, recomputed if an in-place layer has overwritten it; None if it is not available."""
        if value.blob not in blobs:
            return None
        if self.last_values[value.blob] == value:
            return blobs[value.blob]
        return self._run_alone(value, blobs) if value in self.producers else None


def _is_mask(layer: Layer, value: Value) -> bool:
    return layer.type == "Pooling" and value in layer.tops[1:]


def _is_discontinuous(layer: Layer) -> bool:
    """Whether a tiny change of the bottoms can change the top much."""
    return (
        (layer.type == "Pooling" and len(layer.tops) > 1)
        or layer.type in DISCONTINUOUS_TYPES
        or layers.layer_type_of(layer).sized_by_data
    )


def difference(reference: Array, other: Array) -> tuple[float, str]:
    """Return the largest difference, relative to the reference's largest absolute finite value, and a note.

    Two NaN, or the same infinity twice, count as equal; NaN or an infinity against another number gives an infinite
    difference, and so do shapes that differ by more than axes of length 1.
    """
    if reference.shape != other.shape:
        if [dim for dim in reference.shape if dim != 1] != [dim for dim in other.shape if dim != 1]:
            return np.inf, f"shapes differ, {show(reference.shape)} and {show(other.shape)}"
        other = other.reshape(reference.shape)
    if not reference.size:
        return 0.0, "empty"
    a, b = reference.astype("float64"), other.astype("float64")
    finite = np.isfinite(a) & np.isfinite(b)
    comparable = finite | (a == b) | (np.isnan(a) & np.isnan(b))
    if not comparable.all():
        return np.inf, f"{int((~comparable).sum())} of {a.size} numbers are NaN or infinite in only one of the two"
    if not finite.any():
        return 0.0, _NOTHING_FINITE
    largest = float(np.abs(a[finite]).max())
    gap = float(np.abs(a[finite] - b[finite]).max())
    note = "" if finite.all() else f"{int((~finite).sum())} of {a.size} numbers are NaN or infinite in both"
    return gap / max(largest, 1e-20) if gap else 0.0, note


def _largest(array: Array) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))


def run_layer_in_torch(model: NetWithWeights, layer: Layer, bottoms: Sequence[Array]) -> list[Array]:
    """Return the tops that a layer's PyTorch module computes from these bottoms."""
    import torch

    layer_type = layers.layer_type_of(layer)
    module = layer_type.torch(layer, [tuple(bottom.shape) for bottom in bottoms]).eval()
    if blobs := model.weights.of(layer.name):
        layer_type.load(module, blobs)
    with torch.no_grad():
        result = module(*(torch.from_numpy(np.asarray(bottom, "float32", order="C")) for bottom in bottoms))
    tops = result if isinstance(result, (tuple, list)) else (result,)
    return [top.detach().numpy() for top in tops]
