"""TensorBoard's event files, written with TensorBoard's own record writer; without TensorBoard there are none."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any


class Events:
    """One event file of scalars. Written at once: a full disk is an OSError here, not a traceback in a thread."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open a new file; TensorBoard drops what earlier files of the folder say of `first_step` and later."""
        self._pb2: Any = import_module("tensorboard.compat.proto.event_pb2")
        now = time.time()
        name = f"events.out.tfevents.{now:.6f}.{socket.gethostname()}.{os.getpid()}"
        records: Any = import_module("tensorboard.summary.writer.record_writer")
        self._writer = records.RecordWriter((folder / name).open("wb"))
        self._write(self._pb2.Event(wall_time=now, file_version="brain.Event:2"))
        start = self._pb2.SessionLog(status=self._pb2.SessionLog.START)
        self._write(self._pb2.Event(wall_time=now, step=first_step, session_log=start))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars of one step by tag."""
        event = self._pb2.Event(wall_time=time.time(), step=step)
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._write(event)

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())

    def flush(self) -> None:
        """Put the events written so far into the file."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


def open_events(folder: Path, first_step: int) -> Events | None:
    """Return a new event file, or None where TensorBoard is not installed."""
    try:
        return Events(folder, first_step)
    except ImportError:
        return None
