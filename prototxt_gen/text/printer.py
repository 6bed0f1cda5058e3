"""Printer of protobuf text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prototxt_gen.text.scalars import format_scalar
from prototxt_gen.text.tree import Field


def format_fields(fields: Iterable[Field], indent: int = 0) -> str:
    """Return the text of fields, one field per line, indented by `indent` times two spaces. `parse` is the inverse."""
    return "".join(f"{line}\n" for line in _lines(fields, "  " * indent))


def _lines(fields: Iterable[Field], margin: str) -> Iterator[str]:
    for name, value, _ in fields:
        if isinstance(value, tuple):
            yield f"{margin}{name} {{"
            yield from _lines(value, margin + "  ")
            yield f"{margin}}}"
        else:
            yield f"{margin}{name}: {format_scalar(value)}"
