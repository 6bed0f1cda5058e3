"""A child process with Caffe that answers JSON requests; if it dies, its last message becomes the error.

`child_server` is the other side, in the child.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.exit_status import exit_status_text

_MAX_LOG_BYTES = 1 << 20
_MAX_MESSAGE_LENGTH = 600
_FAILED_CHECK = re.compile(
    r"^F\d{4} \S+ +\S+ (?P<where>\S+)\] (?P<message>.*)", re.MULTILINE
)  # glog's line of a failed CHECK
_OUR_ERROR = re.compile(r"layer '.*' \(\w+\): .*", re.DOTALL)
_PYTHON_EXCEPTION = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b: ")
_CREATING_LAYER = re.compile(r"\] Creating Layer (?P<layer>.+)")
_ERROR_AT_LAYER = re.compile(r"(?P<action>\w+) of layer '(?P<layer>.*?)' \((?P<type>\w+)\): (?P<message>.*)", re.DOTALL)


class ChildProcess:
    """Runs `python -m module` with its stderr in the file `log`. Every error in it is raised as PrototxtGenError."""

    def __init__(self, module: str, log: Path) -> None:
        self.log = log
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        variables = {"PYTHONPATH": path, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"}
        # A new process group, so that Ctrl-C only reaches the trainer, which first lets the step finish.
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env={**os.environ, **variables}, start_new_session=True, text=True, bufsize=1,
            )  # fmt: skip
        self._requests = 0

    def request(self, command: str, **arguments: Any) -> Any:
        """Send a request and return its answer. If a signal handler raises here, later requests still work."""
        assert self.process.stdin is not None
        self._requests += 1
        try:
            self.process.stdin.write(json.dumps({"command": command, "id": self._requests, **arguments}) + "\n")
        except BrokenPipeError:
            raise self._death_error() from None
        answer = self._answer_to(self._requests)
        self._shorten_log()
        if "error" in answer:
            raise PrototxtGenError(usual_error_text(answer["error"]))
        return answer["ok"]

    def _answer_to(self, request_id: int) -> dict[str, Any]:
        """Return the answer to a request; complete or partial answers to interrupted requests are skipped."""
        assert self.process.stdout is not None
        for line in iter(self.process.stdout.readline, ""):
            with suppress(json.JSONDecodeError):
                answer: dict[str, Any] = json.loads(line)
                if answer["id"] == request_id:
                    return answer
        raise self._death_error()

    def _death_error(self) -> PrototxtGenError:
        """Return the error for a child that has ended: its last message and its exit status."""
        status = self.process.wait()
        message = last_error_message(self.log.read_text(errors="replace"))
        died = f"Caffe's process ended {exit_status_text(status)}"
        return PrototxtGenError(f"{message} ({died})" if message else died)

    def _shorten_log(self) -> None:
        """Truncate the log of a long run. The child opened it for appending, so it continues at the new end."""
        if self.log.stat().st_size > _MAX_LOG_BYTES:
            os.truncate(self.log, 0)

    def close(self) -> None:
        """Let the child finish its request, and wait until it has ended."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # a request that a dead child did not read is still in the pipe
                    pipe.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def usual_error_text(text: str) -> str:
    """Turn `setup of layer 'x' (Type): file.cpp:12: Check failed: …` into an error message of our usual form.

    One of our Python layers that replaces another layer has already named that layer in its message.
    """
    at_layer = _ERROR_AT_LAYER.search(text)
    full_message = at_layer["message"] if at_layer else text
    our_error = _OUR_ERROR.search(full_message)
    if our_error:
        return our_error[0].strip()
    message = textwrap.shorten(full_message, _MAX_MESSAGE_LENGTH, placeholder=" …")
    if at_layer is None:
        return f"Caffe: {message}"
    return f"layer {at_layer['layer']!r} ({at_layer['type']}): {at_layer['action']}: {message}"


def last_error_message(log: str) -> str:
    """Return the last error in a log: Caffe's failed CHECK with its layer, or the end of a traceback; else "".

    Where the CHECK does not name the layer, it is the last one that the log says was being created.
    """
    last = log.rstrip().rpartition("\n")[2]
    if _ERROR_AT_LAYER.search(last) or _PYTHON_EXCEPTION.match(last):
        return usual_error_text(last)
    failed = next(reversed([*_FAILED_CHECK.finditer(log)]), None)
    if failed is None:
        return ""
    created = [*_CREATING_LAYER.finditer(log, 0, failed.start())]
    setup_done = "Solver scaffolding done" in log[: failed.start()]
    layer = f"layer {created[-1]['layer']!r}: " if created and not setup_done else ""
    return f"{layer}Caffe: {failed['where']}: {failed['message']}"
