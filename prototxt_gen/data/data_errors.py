"""What can be wrong with data. All are `PrototxtGenError`s: one sentence for the user."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.common.errors import PrototxtGenError


class DataError(PrototxtGenError):
    """A data set is missing, damaged, or not what a net or a command asks for."""


class BrokenImageError(DataError):
    """One picture cannot be decoded; `make` counts these and reports them together."""


def named(items: Sequence[str], most: int = 10) -> str:
    """Return `a, b, c and 4 more`: enough names to act on, never a screenful."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
