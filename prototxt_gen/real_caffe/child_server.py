"""What a process with Caffe in it does: a line of JSON in, a line of JSON out, until stdin ends. `Child` starts it.

A failed CHECK in Caffe may end the process it happens in; so it is never the user's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

Order = dict[str, Any]


class Session(Protocol):
    """What orders are given to: `do` names a method that takes the order and returns what JSON can hold."""

    def started(self) -> Any:
        """Return the answer to the order "start", which made the session."""
        ...


def serve(make: Callable[[Order], Session]) -> None:
    """Answer orders, the first of which makes the session. Whatever Caffe and its layers print goes to stderr, a file.

    Ctrl-C and SIGTERM are for the parent, which lets a step end first; the end of stdin is the end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.path.insert(0, str(Path.cwd()))  # where layers of the user's own are looked for
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session: list[Session] = []
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            order = json.loads(line)
            answers.write(json.dumps({"order": order["order"], **_answer(make, session, order)}) + "\n")
        answers.flush()
    os._exit(0)  # Caffe's prefetch threads and Python's end get into each other's way


def _answer(make: Callable[[Order], Session], session: list[Session], order: Order) -> Order:
    try:
        if order["do"] == "start":
            session[:] = [make(order)]
            return {"ok": session[0].started()}
        action: Callable[[Order], Any] = getattr(session[0], order["do"])
        return {"ok": action(order)}
    except Exception as error:  # every fault is the parent's to report
        return {"error": str(error), "kind": type(error).__name__}
