"""The writer: fields as text, one a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prototxt_gen.text.scalars import format_scalar
from prototxt_gen.text.tree import Field


def format_fields(fields: Iterable[Field], indent: int = 0) -> str:
    """Return fields as text, one a line, `indent` times two spaces in; `parse` makes the same fields of it."""
    return "".join(f"{line}\n" for line in _lines(fields, "  " * indent))


def _lines(fields: Iterable[Field], margin: str) -> Iterator[str]:
    for name, value, _ in fields:
        if isinstance(value, tuple):
            yield f"{margin}{name} {{"
            yield from _lines(value, margin + "  ")
            yield f"{margin}}}"
        else:
            yield f"{margin}{name}: {format_scalar(value)}"
