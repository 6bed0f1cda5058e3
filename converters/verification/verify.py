"""Verification: run a net on the same inputs in several runtimes, and compare every blob with the first runtime's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converters.common.net_with_weights import NetWithWeights
from converters.verification.blob_comparison import BlobComparison, compare_blobs, difference
from converters.verification.rounding import RoundingEffect
from converters.verification.runtimes import RUNTIMES, Blobs, Runtime
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RuntimeOutcome:
    """The outcome of one runtime.

    `state`: "ran", "not run" (it is not installed) or "cannot" (it refused the net); `reason` says why it did not run.
    `comparisons`: its blobs compared with those of the reference, in the order of the net's layers.
    """

    runtime: str
    state: str
    reason: str = ""
    comparisons: tuple[BlobComparison, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all compared blobs agree with the reference."""
        return all(comparison.ok for comparison in self.comparisons)

    @property
    def worst(self) -> BlobComparison | None:
        """The comparison with the largest error relative to its tolerance; those that are not ok come first."""
        return max(self.comparisons, key=lambda c: (not c.ok, c.error / c.tolerance), default=None)

    @property
    def first_diverging(self) -> BlobComparison | None:
        """The first blob, in the order of the net's layers, that differs from the reference."""
        return next((comparison for comparison in self.comparisons if not comparison.ok), None)


@dataclass(frozen=True)
class VerificationReport:
    """The outcome of every runtime.

    `net`: file or name of the net. `layers`: its number of layers. `reference`: the runtime that all others are
    compared with; empty if none ran. `required`: runtimes that must have run for the net to count as verified.
    `problem`: why the blobs cannot be compared, whatever the runtimes return; empty if there is nothing.
    """

    net: str
    layers: int
    reference: str
    outcomes: tuple[RuntimeOutcome, ...] = ()
    required: frozenset[str] = frozenset()
    problem: str = ""

    @property
    def not_run(self) -> list[str]:
        """The required runtimes that did not run."""
        ran = {outcome.runtime for outcome in self.outcomes if outcome.state == "ran"}
        return [name for name in (outcome.runtime for outcome in self.outcomes) if name in self.required - ran]

    @property
    def compared(self) -> list[RuntimeOutcome]:
        """The runtimes that ran, without the reference."""
        return [outcome for outcome in self.outcomes if outcome.state == "ran" and outcome.runtime != self.reference]

    @property
    def verified(self) -> bool:
        """Whether at least two runtimes ran, all required ones among them, and all of them agree."""
        all_agree = all(outcome.ok and outcome.comparisons for outcome in self.compared)
        return bool(self.compared) and not self.not_run and not self.problem and all_agree

    @property
    def worst(self) -> float:
        """The largest relative error of any blob in any runtime."""
        return max((c.error for outcome in self.compared for c in outcome.comparisons), default=0.0)


def verify(
    model: NetWithWeights,
    inputs: Mapping[str, Array],
    against: Sequence[str] = tuple(RUNTIMES),
    others: Mapping[str, Runtime] | None = None,
    required: Collection[str] = (),
) -> VerificationReport:
    """Run a net in several runtimes and compare all blobs with those of the first runtime that ran.

    `inputs`: float32 arrays by blob name. `against`: names from RUNTIMES; they run in the order of RUNTIMES. `others`:
    further runtimes by name, such as a converted file; all of them are required for the net to count as verified, and
    so are the names in `required`. Raises PrototxtGenError if a name is not in RUNTIMES. A runtime that is missing or
    fails raises no error.
    """
    unknown = [name for name in against if name not in RUNTIMES]
    if unknown:
        raise PrototxtGenError(f"there is no runtime {unknown[0]!r}; there are {', '.join(RUNTIMES)}")
    runtimes = {name: run for name, run in RUNTIMES.items() if name in against} | dict(others or {})
    blobs: dict[str, Blobs] = {}
    outcomes = {name: _run(name, run, model, inputs, blobs) for name, run in runtimes.items()}
    return _report(RoundingEffect(model, inputs), outcomes, blobs, {*required, *(others or {})})


def _run(
    name: str, run: Runtime, model: NetWithWeights, inputs: Mapping[str, Array], blobs: dict[str, Blobs]
) -> RuntimeOutcome:
    """Run one runtime and store its blobs in `blobs`."""
    try:
        blobs[name] = run(model, inputs)
    except RuntimeMissingError as error:
        return RuntimeOutcome(name, "not run", str(error))
    except PrototxtGenError as error:
        return RuntimeOutcome(name, "cannot", str(error))
    return RuntimeOutcome(name, "ran")


def _report(
    rounding: RoundingEffect,
    outcomes: Mapping[str, RuntimeOutcome],
    blobs: Mapping[str, Blobs],
    required: Collection[str],
) -> VerificationReport:
    reference = next(iter(blobs), "")
    agreeing: dict[str, Blobs] = {}
    compared_outcomes = []
    for name, outcome in outcomes.items():
        if name in blobs and name != reference:
            comparisons = compare_blobs(blobs[reference], blobs[name], rounding)
            outcome = RuntimeOutcome(name, "ran", "", tuple(_with_excuses(comparisons, blobs[name], agreeing)))
            if outcome.ok:
                agreeing[name] = blobs[name]
        compared_outcomes.append(outcome)
    net = rounding.model.net
    name = net.source or net.name
    return VerificationReport(
        name, len(net.layers), reference, tuple(compared_outcomes), frozenset(required), _nan_weights(rounding.model)
    )


def _nan_weights(model: NetWithWeights) -> str:
    """Return a sentence on the first layer whose weights have NaN, with which all runtimes agree on anything."""
    for layer in model.net.layers:
        for role, array in model.weights.of(layer.name).items():
            count = int(np.isnan(array).sum())
            if count:
                return f"layer {layer.name!r} ({layer.type}): {count} of the {array.size} numbers of its {role} are NaN"
    return ""


def _with_excuses(
    comparisons: Sequence[BlobComparison], blobs: Blobs, agreeing: Mapping[str, Blobs]
) -> Iterator[BlobComparison]:
    """Yield the comparisons; one that differs is excused if the blob equals that of a runtime that was found to agree.

    In a deep net rounding can add up beyond the tolerance. Only a runtime that returns every blob shows which layer
    causes that; a converted file often returns the outputs only.
    """
    for comparison in comparisons:
        excuses = (_excused(comparison, name) for name, other in agreeing.items() if _equals(comparison, other, blobs))
        yield next(excuses, comparison)


def _equals(comparison: BlobComparison, agreeing: Blobs, blobs: Blobs) -> bool:
    blob = comparison.blob
    return not comparison.ok and blob in agreeing and difference(agreeing[blob], blobs[blob])[0] <= comparison.tolerance


def _excused(comparison: BlobComparison, runtime: str) -> BlobComparison:
    note = f"accumulated rounding, the same as in {runtime}, which agrees layer by layer"
    return replace(comparison, note=note, excused=True)
