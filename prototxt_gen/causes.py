"""Why an analysis has holes: each reason once, however many layers it holds for."""

from __future__ import annotations

from prototxt_gen.analysis import Analysis, Row


def root_causes(analysis: Analysis) -> dict[str, list[Row]]:
    """Return the rows that are themselves the reason why something is not known, by reason.

    Rows that only wait for the shape of a bottom are left out. The reason is the error's text without the layer's name.
    """
    found: dict[str, list[Row]] = {}
    for row in analysis.rows:
        if row.error is not None and not row.blocked:
            reason = str(row.error).replace(f"layer {row.layer.name!r} ", "", 1)
            found.setdefault(reason, []).append(row)
    return found
