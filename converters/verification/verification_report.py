"""A verification in words: for people a table, for programs plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from converters.verification.blob_comparison import Comparison
from converters.verification.verify import Outcome, Report
from prototxt_gen.common.errors import PrototxtGenError


def rows(report: Report) -> list[tuple[str, ...]]:
    """Return a row for each blob: layer, type, blob, and the error in each runtime that was compared."""
    found: dict[str, dict[str, Comparison]] = {}
    for outcome in report.compared:
        for one in outcome.comparisons:
            found.setdefault(one.blob, {})[outcome.runtime] = one
    made = []
    for blob, by_runtime in found.items():
        any_one = next(iter(by_runtime.values()))
        cells = [_cell(by_runtime.get(outcome.runtime)) for outcome in report.compared]
        made.append((any_one.layer, any_one.type, blob, f"{any_one.tolerance:.0e}", *cells))
    return made


def columns(report: Report) -> tuple[str, ...]:
    """Return the headings that go with `rows`."""
    return ("layer", "type", "blob", "tolerance", *(outcome.runtime for outcome in report.compared))


def _cell(one: Comparison | None) -> str:
    if one is None:
        return "-"
    mark = " *" if one.excused else "" if one.ok else " DIFFERS"
    return f"{one.error:.1e}{mark}" if math.isfinite(one.error) else f"inf{mark}"


def sentences(report: Report) -> Iterator[str]:
    """Yield what is to be said beside the table: what did not run, and where the first difference is."""
    for outcome in report.outcomes:
        yield _sentence(report, outcome)
    if not report.reference:
        yield "NOT VERIFIED: no runtime ran"
    elif not report.compared:
        yield f"NOT VERIFIED: only {report.reference} ran, so there is nothing to compare it with"
    elif report.verified:
        yield f"verified: {len(report.compared) + 1} runtimes agree, the largest error is {report.worst:.1e}"
    else:
        yield "NOT VERIFIED: the runtimes differ"


def _sentence(report: Report, outcome: Outcome) -> str:
    if outcome.state != "ran":
        return f"{outcome.runtime}: {outcome.state}: {outcome.reason}"
    if outcome.runtime == report.reference:
        return f"{outcome.runtime}: the reference"
    if not outcome.comparisons:
        return f"{outcome.runtime}: ran, but shares no blob with the reference"
    first = outcome.first_diverging
    if first is None:
        excused = [one for one in outcome.comparisons if one.excused]
        if not excused:
            return f"{outcome.runtime}: {len(outcome.comparisons)} blobs agree"
        agreeing, example = len(outcome.comparisons) - len(excused), excused[0]
        return (
            f"{outcome.runtime}: {agreeing} blobs agree; {len(excused)} differ by no fault of a layer's, first "
            f"{example.blob!r} by {example.error:.1e} ({example.note})"
        )
    detail = f" ({first.note})" if first.note else ""
    return (
        f"{outcome.runtime}: DIFFERS, first at layer {first.layer!r} ({first.type}), blob {first.blob!r}: "
        f"{first.error:.1e} where {first.tolerance:.0e} is allowed{detail}"
    )


def as_data(report: Report) -> dict[str, Any]:
    """Return the report as plain data; an infinite error is None."""
    return {
        "net": report.net,
        "layers": report.layers,
        "reference": report.reference or None,
        "verified": report.verified,
        "worst_error": _number(report.worst),
        "runtimes": [_outcome_data(outcome) for outcome in report.outcomes],
    }


def _outcome_data(outcome: Outcome) -> dict[str, Any]:
    first = outcome.first_diverging
    return {
        "runtime": outcome.runtime,
        "state": outcome.state,
        "reason": outcome.reason or None,
        "first_diverging": first.blob if first else None,
        "blobs": [_comparison_data(one) for one in outcome.comparisons],
    }


def _comparison_data(one: Comparison) -> dict[str, Any]:
    return {
        "blob": one.blob,
        "layer": one.layer,
        "type": one.type,
        "error": _number(one.error),
        "tolerance": one.tolerance,
        "ok": one.ok,
        "excused": one.excused,
        "note": one.note or None,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


class NotVerifiedError(PrototxtGenError):
    """What was converted does not compute what the net does; `report` says where they differ first."""

    def __init__(self, report: Report) -> None:
        differs = any(not one.ok for one in report.compared)
        what = "the conversion is wrong" if differs else "the conversion could not be verified"
        super().__init__("\n  ".join([f"{report.net}: {what}, nothing is written", *sentences(report)]))
        self.report = report
