"""The request loop of a child process with Caffe: one line of JSON in, one line of JSON out, until stdin is closed.

`child_process.ChildProcess` starts such a process. A failed CHECK in Caffe may end the process in which it happens;
therefore Caffe never runs in the user's own process.
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

Request = dict[str, Any]
"""`command`, `id`, and the arguments of the command."""


class RequestHandler(Protocol):
    """The object that answers requests: `command` names its method, which takes the request and returns JSON data."""

    def start_answer(self) -> Any:
        """Return the answer to the first request, "start", which created the handler."""
        ...


def serve(create_handler: Callable[[Request], RequestHandler]) -> None:
    """Answer requests until stdin is closed; the first one creates the handler. Caffe's own output goes to stderr.

    Ctrl-C and SIGTERM are ignored: the parent handles them and first lets a step finish.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.path.insert(0, str(Path.cwd()))  # for the user's own Python layers
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    handlers: list[RequestHandler] = []
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            request = json.loads(line)
            answers.write(json.dumps({"id": request["id"], **_answer(create_handler, handlers, request)}) + "\n")
        answers.flush()
    os._exit(0)  # a normal exit of Python can hang on Caffe's prefetch threads


def _answer(
    create_handler: Callable[[Request], RequestHandler], handlers: list[RequestHandler], request: Request
) -> dict[str, Any]:
    try:
        if request["command"] == "start":
            handlers[:] = [create_handler(request)]
            return {"ok": handlers[0].start_answer()}
        method: Callable[[Request], Any] = getattr(handlers[0], request["command"])
        return {"ok": method(request)}
    except Exception as error:  # the parent reports all errors
        return {"error": str(error), "kind": type(error).__name__}
