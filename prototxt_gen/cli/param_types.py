"""Types of option values: numbers separated by commas, a part of a data set, and sizes such as 240x320."""

from __future__ import annotations

import click

from prototxt_gen.common.errors import PrototxtGenError


def integers(text: str) -> tuple[int, ...]:
    """Return whole numbers separated by commas; an empty text is none."""
    try:
        return tuple(map(int, text.split(","))) if text.strip() else ()
    except ValueError:
        raise click.BadParameter(f"{text!r} is not whole numbers separated by commas") from None


def floats(text: str) -> tuple[float, ...]:
    """Return numbers separated by commas; an empty text is none."""
    try:
        return tuple(map(float, text.split(","))) if text.strip() else ()
    except ValueError:
        raise click.BadParameter(f"{text!r} is not numbers separated by commas") from None


def fraction(text: str) -> tuple[float, float]:
    """Return FROM:TO, a part of a data set such as 0:0.9, as two numbers."""
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not two numbers separated by a colon, such as 0:0.9") from None
    return low, high


def parse_dims(text: str, option: str) -> tuple[int, ...]:
    """Return `1x3x224x224` (or `1,3,224,224`) as numbers; the error names the option."""
    try:
        dims = tuple(int(part) for part in text.replace("×", "x").replace(",", "x").split("x"))
    except ValueError:
        raise PrototxtGenError(f"{option}: {text!r} is not whole numbers separated by x") from None
    if min(dims) < 1:
        raise PrototxtGenError(f"{option}: {text!r}: every number must be at least 1")
    return dims
