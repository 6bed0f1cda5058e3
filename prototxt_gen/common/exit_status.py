"""How a process of ours ended, in words."""

from __future__ import annotations

import signal

_HINTS = {
    signal.SIGBUS: ": a data set or another file that it read was cut short, or its disk is gone",
    signal.SIGKILL: ": by someone, or because the memory ran out",
}


def ending(status: int) -> str:
    """Return what an exit status tells, as subprocess counts them: below 0 are signals."""
    if status >= 0:
        return f"with exit status {status}"
    ended_by = signal.Signals(-status)
    return f"by {ended_by.name}{_HINTS.get(ended_by, '')}"
