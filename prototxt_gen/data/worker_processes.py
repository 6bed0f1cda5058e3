"""Worker processes that compute batches ahead of use, in memory that they share with the parent process.

This module only distributes the work; what a batch contains is decided by the class that a `MakerSpec` names
(`data.batch_loader.BatchMaker` or `train.input_feed.WorkerBatches`). `train.batch_prefetch` does the same with threads.

Workers are fresh interpreters, not forks: Caffe's process has threads (BLAS, prefetching, CUDA) that a fork would kill
in the middle of their work, and multiprocessing's "spawn" would run the user's main script again. A worker receives
requests as lines on stdin and ends when stdin is closed, so no worker outlives its parent, however the parent ends.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.exit_status import exit_status_text
from prototxt_gen.data.data_errors import DataError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

_BATCHES_PER_WORKER = 2  # one being computed, one waiting to be used


@dataclass(frozen=True)
class MakerSpec:
    """How a worker creates the object that computes its batches.

    `maker_class` is "module:class"; the class is constructed with the text `argument`. Its method
    `make(batch, *arrays)` must fill the float32 arrays of a batch, which have these `shapes`.
    """

    maker_class: str
    argument: str
    shapes: tuple[Shape, ...]

    def create_maker(self) -> Any:
        """Import the class and return an instance."""
        module, name = self.maker_class.split(":")
        return getattr(importlib.import_module(module), name)(self.argument)


class _SharedBatches:
    """`count` batches in memory shared between processes; `arrays[i]` are the float32 arrays of slot i."""

    def __init__(self, fd: int, count: int, shapes: Sequence[Shape]) -> None:
        self.memory = mmap.mmap(fd, batches_bytes(count, shapes))
        flat = np.frombuffer(self.memory, np.float32).reshape(count, -1)
        self.arrays: list[list[Array]] = [[] for _ in range(count)]
        start = 0
        for shape in shapes:
            end = start + math.prod(shape)
            for slot, row in zip(self.arrays, flat, strict=True):
                slot.append(row[start:end].reshape(shape))
            start = end


def batches_bytes(count: int, shapes: Sequence[Shape]) -> int:
    """Return the memory of `count` batches in bytes."""
    return 4 * count * sum(map(math.prod, shapes))


class _Worker:
    """One worker process. It answers each request with one line."""

    def __init__(self, spec: MakerSpec, slots: int, fd: int) -> None:
        first_line = json.dumps({"spec": asdict(spec), "slots": slots, "fd": fd})
        package_root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([package_root, *filter(None, [os.environ.get("PYTHONPATH")])])
        # A new process group, so that Ctrl-C only reaches the trainer, which needs batches to finish its iteration.
        self.process = subprocess.Popen(
            [_python(), "-m", "prototxt_gen.data.worker_processes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            pass_fds=(fd,), env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
        self.last_answered = 0  # serial number
        self.errors: dict[int, str | None] = {}
        self.send(first_line)

    def send(self, line: str) -> None:
        """Send one line to the worker."""
        stdin = self.process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` reports why the worker has ended
            stdin.write(line.encode() + b"\n")
            stdin.flush()

    def answer(self, serial: int) -> str | None:
        """Wait until request number `serial` is done and return its error message, or None.

        Requests are numbered because Ctrl-C can interrupt the trainer here at any point, and it may then ask for the
        same answer again.
        """
        assert self.process.stdout is not None
        while self.last_answered < serial:
            line = self.process.stdout.readline()
            if not line:
                raise DataError(self._ended_message())
            answered, self.errors[answered] = json.loads(line)
            self.last_answered = answered
        return self.errors.pop(serial, None)

    def _ended_message(self) -> str:
        """Return how the worker process ended. Unless a signal ended it, it has printed an error on stderr."""
        status = self.process.wait()
        return f"a data worker ended {exit_status_text(status)}{'' if status < 0 else '; its error message is above'}"

    def close(self) -> None:
        """Let the worker finish its current batch, and wait until it has ended."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        stdout.read()
        stdout.close()
        self.process.wait()


class WorkerPool:
    """A number of worker processes. Batch n is computed by worker n mod workers."""

    def __init__(self, spec: MakerSpec, workers: int) -> None:
        self.prefetched = workers * _BATCHES_PER_WORKER
        size = batches_bytes(self.prefetched, spec.shapes)
        with tempfile.TemporaryFile(dir=_folder_with_space(size)) as file:
            _reserve(file.fileno(), size)
            self.shared = _SharedBatches(file.fileno(), self.prefetched, spec.shapes)
            self.workers = [_Worker(spec, self.prefetched, file.fileno()) for _ in range(workers)]
        self.pending: deque[tuple[int, int]] = deque()  # (batch, serial number of the request), oldest first
        self.serial = 0

    def fill(self, batch: int, *arrays: Array) -> None:
        """Copy batch number `batch` into the arrays and request following batches from the workers.

        Fastest where batches are taken in order. Raises DataError if the batch cannot be computed.
        """
        if not self.pending or self.pending[0][0] != batch:
            self._restart_at(batch)
        error = self._wait_for_oldest()
        if error is not None:
            raise DataError(error)
        for array, shared in zip(arrays, self.shared.arrays[batch % self.prefetched], strict=True):
            array[...] = shared
        self._request(batch + self.prefetched)

    def _restart_at(self, batch: int) -> None:
        while self.pending:
            self._wait_for_oldest()  # errors in batches that are no longer needed are ignored
        for offset in range(self.prefetched):
            self._request(batch + offset)

    def _wait_for_oldest(self) -> str | None:
        batch, serial = self.pending[0]
        error = self._worker(batch).answer(serial)
        self.pending.popleft()
        return error

    def _request(self, batch: int) -> None:
        self.serial += 1
        self._worker(batch).send(json.dumps([self.serial, batch, batch % self.prefetched]))
        self.pending.append((batch, self.serial))

    def _worker(self, batch: int) -> _Worker:
        return self.workers[batch % len(self.workers)]

    def close(self) -> None:
        """Stop the worker processes."""
        for worker in self.workers:
            worker.close()
        self.workers = []

    def __del__(self) -> None:
        self.close() if hasattr(self, "workers") else None


def _python() -> str:
    """Return the Python executable. In a program that embeds Python (`caffe train`), sys.executable may be that one."""
    if Path(sys.executable or "").name.startswith(("python", "pypy")):
        return sys.executable
    return str(Path(sys.prefix) / "bin" / f"python{sys.version_info.major}")


def _folder_with_space(size: int) -> str | None:
    """Return /dev/shm if it has enough space (containers often have only 64 MB), else None: the temporary folder."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 2 * size else None


def _reserve(fd: int, size: int) -> None:
    """Allocate the memory now. If it ran out later, a bus error would end the training."""
    try:
        os.ftruncate(fd, size)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(fd, 0, size)
    except OSError as error:
        raise DataError(f"data: no space for {size >> 20} MB of prefetched batches ({error.strerror}); "
                        f"use fewer workers or a smaller batch_size") from error  # fmt: skip


def _serve() -> None:
    """Run a worker. The first line on stdin is the MakerSpec, each further line a request [serial, batch, slot]."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the worker ends when stdin is closed
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries must not be taken for an answer
    first_line = json.loads(sys.stdin.readline())
    maker: Any = None
    for line in sys.stdin:
        serial, batch, slot = json.loads(line)
        answer = None
        try:
            if maker is None:
                maker, shared = _start(first_line)
            maker.make(batch, *shared.arrays[slot])
        except Exception as error:  # the parent reports all errors
            answer = str(error) if isinstance(error, PrototxtGenError) else f"{type(error).__name__}: {error}"
        answers.write(json.dumps([serial, answer]) + "\n")


def _start(first_line: dict[str, Any]) -> tuple[Any, _SharedBatches]:
    from prototxt_gen.data.images import opencv

    with contextlib.suppress(Exception):  # data sets without image files need no OpenCV
        opencv().setNumThreads(1)
    fields = first_line["spec"]
    spec = MakerSpec(fields["maker_class"], fields["argument"], tuple(map(tuple, fields["shapes"])))
    return spec.create_maker(), _SharedBatches(first_line["fd"], first_line["slots"], spec.shapes)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        _serve()
