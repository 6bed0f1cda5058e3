"""Processes that prepare batches ahead, and the memory they hand them over in.

Fresh interpreters rather than forks: Caffe's process has threads (BLAS, prefetching, CUDA) that a fork would cut off
in the middle, and multiprocessing's spawn runs the user's main script again. A worker gets its orders as lines on
stdin and ends when that closes, so none outlives its parent, however it died.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import mmap
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.exit_status import ending
from prototxt_gen.data.data_errors import DataError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

_SLOTS_PER_WORKER = 2  # one being filled, one waiting to be fetched


@dataclass(frozen=True)
class Recipe:
    """What a worker makes batches by: `maker` names a class as "module:name", which is made of the text `given`.

    Its `make(batch, *arrays)` fills the arrays of a batch, float32 of these shapes.
    """

    maker: str
    given: str
    shapes: tuple[Shape, ...]

    def start(self) -> Any:
        """Return the maker."""
        module, name = self.maker.split(":")
        return getattr(importlib.import_module(module), name)(self.given)


class _Slots:
    """Batches in memory shared between processes: slot i holds one batch's arrays one after another, float32."""

    def __init__(self, fd: int, count: int, shapes: Sequence[Shape]) -> None:
        self.memory = mmap.mmap(fd, slots_bytes(count, shapes))
        flat = np.frombuffer(self.memory, np.float32).reshape(count, -1)
        self.arrays: list[list[Array]] = [[] for _ in range(count)]
        at = 0
        for shape in shapes:
            for slot, row in zip(self.arrays, flat, strict=True):
                slot.append(row[at : at + math.prod(shape)].reshape(shape))
            at += math.prod(shape)


def slots_bytes(count: int, shapes: Sequence[Shape]) -> int:
    """Return the memory that `count` batches take."""
    return 4 * count * sum(map(math.prod, shapes))


class _Worker:
    """One process, answering each order with one line."""

    def __init__(self, recipe: Recipe, slots: int, fd: int) -> None:
        told = {"maker": recipe.maker, "given": recipe.given, "shapes": recipe.shapes}
        order = json.dumps({"recipe": told, "slots": slots, "fd": fd})
        package_root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([package_root, *filter(None, [os.environ.get("PYTHONPATH")])])
        # In a session of its own: Ctrl-C is for the trainer, which still needs batches to finish its iteration.
        self.process = subprocess.Popen(
            [_python(), "-m", "prototxt_gen.data.worker_processes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            pass_fds=(fd,), env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
        self.done = 0  # the last order answered
        self.errors: dict[int, str | None] = {}
        self.order(order)

    def order(self, line: str) -> None:
        stdin = self.process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` says why it is gone
            stdin.write(line.encode() + b"\n")
            stdin.flush()

    def answer(self, serial: int) -> str | None:
        """Wait until order `serial` is done and return what went wrong with it.

        Orders are numbered, as a Ctrl-C can take the trainer out of here at any place, to come again for the same one.
        """
        assert self.process.stdout is not None
        while self.done < serial:
            line = self.process.stdout.readline()
            if not line:
                raise DataError(self._end())
            serial_done, self.errors[serial_done] = json.loads(line)
            self.done = serial_done
        return self.errors.pop(serial, None)

    def _end(self) -> str:
        """Say what a worker that is gone died of: a signal leaves no words of its own on stderr."""
        status = self.process.wait()
        return f"a data worker ended {ending(status)}{'' if status < 0 else '; its words are above'}"

    def close(self) -> None:
        """Let it finish what it is at, and end."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        stdout.read()
        stdout.close()
        self.process.wait()


class Crew:
    """So many worker processes. Batch n is made by worker n mod workers, so answers come in order by themselves."""

    def __init__(self, recipe: Recipe, workers: int) -> None:
        self.ahead = workers * _SLOTS_PER_WORKER
        need = slots_bytes(self.ahead, recipe.shapes)
        with tempfile.TemporaryFile(dir=_roomy_folder(need)) as file:
            _reserve(file.fileno(), need)
            self.slots = _Slots(file.fileno(), self.ahead, recipe.shapes)
            self.workers = [_Worker(recipe, self.ahead, file.fileno()) for _ in range(workers)]
        self.ordered: deque[tuple[int, int]] = deque()  # (batch, serial number of the order), oldest first
        self.serial = 0

    def fill(self, batch: int, *arrays: Array) -> None:
        """Write batch number `batch`; the ones after it are ordered, and ready sooner the later they are asked for."""
        if not self.ordered or self.ordered[0][0] != batch:
            self._go_to(batch)
        error = self._take()
        if error is not None:
            raise DataError(error)
        for array, made in zip(arrays, self.slots.arrays[batch % self.ahead], strict=True):
            array[...] = made
        self._order(batch + self.ahead)

    def _go_to(self, batch: int) -> None:
        while self.ordered:
            self._take()  # and never mind a fault in a batch nobody wants
        for ahead in range(self.ahead):
            self._order(batch + ahead)

    def _take(self) -> str | None:
        batch, serial = self.ordered[0]
        error = self._worker(batch).answer(serial)
        self.ordered.popleft()
        return error

    def _order(self, batch: int) -> None:
        self.serial += 1
        self._worker(batch).order(json.dumps([self.serial, batch, batch % self.ahead]))
        self.ordered.append((batch, self.serial))

    def _worker(self, batch: int) -> _Worker:
        return self.workers[batch % len(self.workers)]

    def close(self) -> None:
        """End the processes."""
        for worker in self.workers:
            worker.close()
        self.workers = []

    def __del__(self) -> None:
        self.close() if hasattr(self, "workers") else None


def _python() -> str:
    """Return this Python's own program. Inside an embedding program (`caffe train`) sys.executable may be that one."""
    if Path(sys.executable or "").name.startswith(("python", "pypy")):
        return sys.executable
    return str(Path(sys.prefix) / "bin" / f"python{sys.version_info.major}")


def _roomy_folder(need: int) -> str | None:
    """Return /dev/shm if it has enough space, else None, the usual temp folder. Containers often give it 64 MB."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 2 * need else None


def _reserve(fd: int, need: int) -> None:
    """Claim the memory now: running out of it later would be a bus error in the middle of training."""
    try:
        os.ftruncate(fd, need)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(fd, 0, need)
    except OSError as error:
        raise DataError(f"data: no layer type for {need >> 20} MB of batches ahead ({error.strerror}); "
                        f"use fewer workers or a smaller batch_size") from error  # fmt: skip


def _serve() -> None:
    """Be a worker: the first line on stdin says what to load, each further one [serial, batch, slot]."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end is the end of stdin
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not pass for an answer
    start = json.loads(sys.stdin.readline())
    maker: Any = None
    for line in sys.stdin:
        serial, batch, slot = json.loads(line)
        answer = None
        try:
            if maker is None:
                maker, slots = _start(start)
            maker.make(batch, *slots.arrays[slot])
        except Exception as error:  # every fault is the parent's to report
            answer = str(error) if isinstance(error, PrototxtGenError) else f"{type(error).__name__}: {error}"
        answers.write(json.dumps([serial, answer]) + "\n")


def _start(start: dict[str, Any]) -> tuple[Any, _Slots]:
    from prototxt_gen.data.images import opencv

    with contextlib.suppress(Exception):  # arrays need no OpenCV
        opencv().setNumThreads(1)
    told = start["recipe"]
    recipe = Recipe(told["maker"], told["given"], tuple(map(tuple, told["shapes"])))
    return recipe.start(), _Slots(start["fd"], start["slots"], recipe.shapes)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        _serve()
