"""Errors of data sets. All are PrototxtGenErrors with a message of one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.common.errors import PrototxtGenError


class DataError(PrototxtGenError):
    """A data set is missing, damaged, or unsuitable for a net or a command."""


class BrokenImageError(DataError):
    """An image cannot be decoded. `make` collects these errors and reports them together."""


def abbreviated(items: Sequence[str], most: int = 10) -> str:
    """Return the items as text, abbreviated after `most` of them: `a, b, c and 4 more`."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
