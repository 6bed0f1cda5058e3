"""Reasons for unknown shapes: each root cause with its layers, and the number of later layers that depend on them."""

from __future__ import annotations

from dataclasses import dataclass, field

from prototxt_gen.analysis.net_analysis import Analysis, Row
from prototxt_gen.ir import Value

DANGLING_BOTTOM = "a bottom that no layer makes"


@dataclass
class Cause:
    """One reason for unknown shapes.

    `reason` is the text of the error without the layer's name, `rows` are the layers with this error, and `waiting` is
    the number of later layers whose shapes depend on them.
    """

    reason: str
    rows: list[Row] = field(default_factory=list)
    waiting: int = 0


def root_causes(analysis: Analysis) -> list[Cause]:
    """Return the root causes of unknown shapes, in the order of the net. All dangling bottoms are one cause."""
    causes: dict[str, Cause] = {}
    reason_of: dict[Value, str] = {}
    for row in analysis.rows:
        if row.error is None:
            continue
        reason = _inherited_reason(row, reason_of) if row.blocked else _reason(row)
        cause = causes.setdefault(reason, Cause(reason))
        if row.blocked:
            cause.waiting += 1
        else:
            cause.rows.append(row)
        reason_of.update(dict.fromkeys(row.layer.tops, reason))
    return list(causes.values())


def _reason(row: Row) -> str:
    return str(row.error).replace(f"layer {row.layer.name!r} ", "", 1)


def _inherited_reason(row: Row, reason_of: dict[Value, str]) -> str:
    """Return the reason why the first bottom without a shape has none."""
    unknown = [value for value, shape in zip(row.layer.bottoms, row.bottoms, strict=True) if shape is None]
    return reason_of.get(unknown[0], DANGLING_BOTTOM)
