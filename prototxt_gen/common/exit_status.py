"""Exit status of a child process as text for an error message."""

from __future__ import annotations

import signal

_HINTS = {
    signal.SIGBUS: ": a file that it read (such as a data set) was truncated, or its disk was removed",
    signal.SIGKILL: ": by another process, or because the memory was exhausted",
}


def exit_status_text(status: int) -> str:
    """Return "with exit status 1" or "by SIGKILL: …" for a return code of subprocess, where signals are negative."""
    if status >= 0:
        return f"with exit status {status}"
    ended_by = signal.Signals(-status)
    return f"by {ended_by.name}{_HINTS.get(ended_by, '')}"
