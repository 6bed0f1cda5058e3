"""A child process that answers JSON with JSON, and whose end is told in its own last words."""

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
from prototxt_gen.common.exit_status import ending

_LONG_LOG = 1 << 20
_LONG_WORDS = 600
_FAILED = re.compile(r"^F\d{4} \S+ +\S+ (?P<where>\S+)\] (?P<what>.*)", re.MULTILINE)  # glog's line of a failed CHECK
_OURS = re.compile(r"layer '.*' \(\w+\): .*", re.DOTALL)
_RAISED = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b: ")
_CREATING = re.compile(r"\] Creating Layer (?P<layer>.+)")
_AT_LAYER = re.compile(r"(?P<action>\w+) of layer '(?P<layer>.*?)' \((?P<type>\w+)\): (?P<what>.*)", re.DOTALL)


class Child:
    """`python -m module`, with its stderr in `log`. Raises PrototxtGenError for whatever goes wrong in it."""

    def __init__(self, module: str, log: Path) -> None:
        self.log = log
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        told = {"PYTHONPATH": path, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"}
        # In a session of its own: Ctrl-C is for the trainer, which lets the step end first.
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env={**os.environ, **told}, start_new_session=True, text=True, bufsize=1,
            )  # fmt: skip
        self._orders = 0

    def ask(self, do: str, **order: Any) -> Any:
        """Give an order and return its answer. A signal's exception may break it off anywhere: another can follow."""
        assert self.process.stdin is not None
        self._orders += 1
        try:
            self.process.stdin.write(json.dumps({"do": do, "order": self._orders, **order}) + "\n")
        except BrokenPipeError:
            raise self._end() from None
        answer = self._answer_to(self._orders)
        self._shorten_log()
        if "error" in answer:
            raise PrototxtGenError(in_our_words(answer["error"]))
        return answer["ok"]

    def _answer_to(self, order: int) -> dict[str, Any]:
        """Return the answer to an order; those to orders that were broken off, whole or in part, are passed over."""
        assert self.process.stdout is not None
        for line in iter(self.process.stdout.readline, ""):
            with suppress(json.JSONDecodeError):
                answer: dict[str, Any] = json.loads(line)
                if answer["order"] == order:
                    return answer
        raise self._end()

    def _end(self) -> PrototxtGenError:
        """Return what a child that is gone died of."""
        status = self.process.wait()
        words = last_words(self.log.read_text(errors="replace"))
        died = f"Caffe's process ended {ending(status)}"
        return PrototxtGenError(f"{words} ({died})" if words else died)

    def _shorten_log(self) -> None:
        """Keep the log of a long run short; it is opened for appending, so it goes on at its new end."""
        if self.log.stat().st_size > _LONG_LOG:
            os.truncate(self.log, 0)

    def close(self) -> None:
        """Let it finish what it is at, and end."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # an order that a dead child never took is still in the pipe
                    pipe.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def in_our_words(text: str) -> str:
    """Turn `setup of layer 'x' (Type): file.cpp:12: Check failed: …` into an error of the usual form.

    A layer of ours that stands in for another has named that one already.
    """
    found = _AT_LAYER.search(text)
    own = _OURS.search(found["what"] if found else text)
    if own:
        return own[0].strip()
    words = textwrap.shorten(found["what"] if found else text, _LONG_WORDS, placeholder=" …")
    return f"layer {found['layer']!r} ({found['type']}): {found['action']}: {words}" if found else f"Caffe: {words}"


def last_words(log: str) -> str:
    """Return what Caffe said before it ended: its failed CHECK with the layer, or the end of a traceback; else nothing.

    A Caffe that does not name the layer in its CHECKs has said which one it was creating.
    """
    last = log.rstrip().rpartition("\n")[2]
    if _AT_LAYER.search(last) or _RAISED.match(last):
        return in_our_words(last)
    failed = next(reversed([*_FAILED.finditer(log)]), None)
    if failed is None:
        return ""
    created = [*_CREATING.finditer(log, 0, failed.start())]
    started = "Solver scaffolding done" in log[: failed.start()]
    layer = f"layer {created[-1]['layer']!r}: " if created and not started else ""
    return f"{layer}Caffe: {failed['where']}: {failed['what']}"
