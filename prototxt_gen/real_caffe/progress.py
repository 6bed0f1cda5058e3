"""How far a build is: a bar on stderr if that is a terminal, nothing otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with what is being done, and with the share of the whole that is done, 0 to 1."""


def silent(what: str, share: float) -> None:
    """Show nothing."""


def bar(what: str, share: float) -> None:
    """Redraw one line of stderr; end it when the share reaches 1."""
    width = 30
    done = int(width * min(max(share, 0.0), 1.0))
    line = f"\r{'#' * done}{'.' * (width - done)} {share:4.0%} {what:<40.40}"
    sys.stderr.write(line + ("\n" if share >= 1 else ""))
    sys.stderr.flush()


def default() -> Progress:
    """Return the bar for a terminal, silence for everything else."""
    return bar if sys.stderr.isatty() else silent


def part(progress: Progress, start: float, end: float) -> Progress:
    """Return a progress whose 0 to 1 is `start` to `end` of the given one."""
    return lambda what, share: progress(what, start + (end - start) * share)
