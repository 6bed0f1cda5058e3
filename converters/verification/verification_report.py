"""A verification report as table rows, as sentences, and as a dict for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from converters.verification.blob_comparison import BlobComparison
from converters.verification.verify import RuntimeOutcome, VerificationReport
from prototxt_gen.common.errors import PrototxtGenError


def table_columns(report: VerificationReport) -> tuple[str, ...]:
    """Return the column headings of `table_rows`."""
    return ("layer", "type", "blob", "tolerance", *(outcome.runtime for outcome in report.compared))


def table_rows(report: VerificationReport) -> list[tuple[str, ...]]:
    """Return one row per blob: layer, type, blob, tolerance, and the error in each compared runtime."""
    by_blob: dict[str, dict[str, BlobComparison]] = {}
    for outcome in report.compared:
        for comparison in outcome.comparisons:
            by_blob.setdefault(comparison.blob, {})[outcome.runtime] = comparison
    rows = []
    for blob, by_runtime in by_blob.items():
        first = next(iter(by_runtime.values()))
        cells = [_error_cell(by_runtime.get(outcome.runtime)) for outcome in report.compared]
        rows.append((first.layer, first.type, blob, f"{first.tolerance:.0e}", *cells))
    return rows


def _error_cell(comparison: BlobComparison | None) -> str:
    """Return the error, with " *" if it is excused and " DIFFERS" if the blob differs."""
    if comparison is None:
        return "-"
    mark = " *" if comparison.excused else "" if comparison.ok else " DIFFERS"
    return f"{comparison.error:.1e}{mark}" if math.isfinite(comparison.error) else f"inf{mark}"


def summary_sentences(report: VerificationReport) -> Iterator[str]:
    """Yield a sentence per runtime, which says whether it ran and where it first differs, and the overall result."""
    for outcome in report.outcomes:
        yield _outcome_sentence(report, outcome)
    if report.problem:
        yield f"NOT VERIFIED: {report.problem}"
    elif not report.reference:
        yield "NOT VERIFIED: no runtime ran"
    elif report.not_run:
        yield f"NOT VERIFIED: {', '.join(report.not_run)} did not run"
    elif not report.compared:
        yield f"NOT VERIFIED: only {report.reference} ran, so there is nothing to compare it with"
    elif report.verified:
        yield f"verified: {len(report.compared) + 1} runtimes agree, the largest error is {report.worst:.1e}"
    else:
        yield "NOT VERIFIED: the runtimes differ"


def _outcome_sentence(report: VerificationReport, outcome: RuntimeOutcome) -> str:
    if outcome.state != "ran":
        return f"{outcome.runtime}: {outcome.state}: {outcome.reason}"
    if outcome.runtime == report.reference:
        return f"{outcome.runtime}: the reference"
    if not outcome.comparisons:
        return f"{outcome.runtime}: ran, but shares no blob with the reference"
    first = outcome.first_diverging
    if first is None:
        return _agreement_sentence(outcome)
    note = f" ({first.note})" if first.note else ""
    return (
        f"{outcome.runtime}: DIFFERS, first at layer {first.layer!r} ({first.type}), blob {first.blob!r}: "
        f"{first.error:.1e} where {first.tolerance:.0e} is allowed{note}"
    )


def _agreement_sentence(outcome: RuntimeOutcome) -> str:
    excused = [comparison for comparison in outcome.comparisons if comparison.excused]
    if not excused:
        return f"{outcome.runtime}: {len(outcome.comparisons)} blobs agree"
    agreeing, first = len(outcome.comparisons) - len(excused), excused[0]
    return (
        f"{outcome.runtime}: {agreeing} blobs agree; {len(excused)} differ without an error in their layers, the "
        f"first is {first.blob!r} by {first.error:.1e} ({first.note})"
    )


def as_dict(report: VerificationReport) -> dict[str, Any]:
    """Return the report as a dict for JSON; an infinite error becomes None."""
    return {
        "net": report.net,
        "layers": report.layers,
        "reference": report.reference or None,
        "verified": report.verified,
        "worst_error": _finite_or_none(report.worst),
        "runtimes": [_outcome_dict(outcome) for outcome in report.outcomes],
    }


def _outcome_dict(outcome: RuntimeOutcome) -> dict[str, Any]:
    first = outcome.first_diverging
    return {
        "runtime": outcome.runtime,
        "state": outcome.state,
        "reason": outcome.reason or None,
        "first_diverging": first.blob if first else None,
        "blobs": [_comparison_dict(comparison) for comparison in outcome.comparisons],
    }


def _comparison_dict(comparison: BlobComparison) -> dict[str, Any]:
    return {
        "blob": comparison.blob,
        "layer": comparison.layer,
        "type": comparison.type,
        "error": _finite_or_none(comparison.error),
        "tolerance": comparison.tolerance,
        "ok": comparison.ok,
        "excused": comparison.excused,
        "note": comparison.note or None,
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


class NotVerifiedError(PrototxtGenError):
    """A converted model does not compute the same as the net, or could not be run; `report` has the details."""

    def __init__(self, report: VerificationReport) -> None:
        differs = any(not outcome.ok for outcome in report.compared)
        problem = (
            "the conversion is wrong" if differs and not report.problem else "the conversion could not be verified"
        )
        super().__init__("\n  ".join([f"{report.net}: {problem}, nothing is written", *summary_sentences(report)]))
        self.report = report
