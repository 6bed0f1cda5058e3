"""Why an analysis has holes: each reason once, with the layers that it holds for and those that only wait for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from prototxt_gen.analysis.net_analysis import Analysis, Row
from prototxt_gen.ir import Value

NOBODY = "a bottom that no layer makes"


@dataclass
class Cause:
    """One reason, the error's text without the layer's name; `waiting` counts the layers further down."""

    reason: str
    rows: list[Row] = field(default_factory=list)
    waiting: int = 0


def root_causes(analysis: Analysis) -> list[Cause]:
    """Return the reasons why something is not known, in the order of the net; the dangling bottoms are one reason."""
    found: dict[str, Cause] = {}
    blame: dict[Value, str] = {}
    for row in analysis.rows:
        if row.error is None:
            continue
        reason = _inherited(row, blame) if row.blocked else _reason(row)
        cause = found.setdefault(reason, Cause(reason))
        if row.blocked:
            cause.waiting += 1
        else:
            cause.rows.append(row)
        blame.update(dict.fromkeys(row.layer.tops, reason))
    return list(found.values())


def _reason(row: Row) -> str:
    return str(row.error).replace(f"layer {row.layer.name!r} ", "", 1)


def _inherited(row: Row, blame: dict[Value, str]) -> str:
    """Return what the first bottom without a shape waits for."""
    unknown = [value for value, shape in zip(row.layer.bottoms, row.bottoms, strict=True) if shape is None]
    return blame.get(unknown[0], NOBODY)
