"""TensorBoard event files, written with TensorBoard's own record writer if it is installed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any


class Events:
    """One event file of scalars, written without a background thread, so that a full disk raises OSError here."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open a new file, in a new folder if need be.

        TensorBoard ignores entries of earlier files in the folder from `first_step` on.
        """
        self._pb2: Any = import_module("tensorboard.compat.proto.event_pb2")
        now = time.time()
        name = f"events.out.tfevents.{now:.6f}.{socket.gethostname()}.{os.getpid()}"
        records: Any = import_module("tensorboard.summary.writer.record_writer")
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = records.RecordWriter((folder / name).open("wb"))
        self._write(self._pb2.Event(wall_time=now, file_version="brain.Event:2"))
        start = self._pb2.SessionLog(status=self._pb2.SessionLog.START)
        self._write(self._pb2.Event(wall_time=now, step=first_step, session_log=start))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write the scalars of one step by tag."""
        event = self._pb2.Event(wall_time=time.time(), step=step)
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._write(event)

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())

    def flush(self) -> None:
        """Flush the events written so far to the file."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


def open_event_file(folder: Path, first_step: int) -> Events | None:
    """Return a new event file, or None if TensorBoard is not installed."""
    try:
        return Events(folder, first_step)
    except ImportError:
        return None
