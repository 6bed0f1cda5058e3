"""A data set under construction: a folder beside the result, with a journal that lets an interrupted run go on.

The journal's first line says what is being made, each further one that a chunk of samples is safely stored. A chunk
is written before its line, so after a kill at any moment at most one chunk is written twice, with the same content.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prototxt_gen.data.data_errors import DataError

_JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Chunk:
    """What one chunk holds: samples stored, checksum of them in order, pictures left out, counts of shapes."""

    rows: int
    crc: int
    broken: tuple[str, ...] = ()
    shapes: Mapping[str, int] = field(default_factory=dict)


class Partial:
    """The folder `.OUT.partial` and the chunks its journal says are done."""

    def __init__(self, out: Path, arguments: Mapping[str, Any]) -> None:
        self.out, self.folder = out, out.parent / f".{out.name}.partial"
        self.content = self.folder / "content"
        self.head = json.dumps(dict(arguments), sort_keys=True)
        self.chunks: list[Chunk] = []

    def open(self) -> None:
        """Take up what an equal run left, or begin anew."""
        lines = self._lines()
        if not lines or lines[0] != self.head or not self.content.is_dir():
            self._begin()
            return
        for line in lines[1:]:
            self.chunks.append(Chunk(**json.loads(line)))

    def add(self, chunk: Chunk) -> None:
        """Note that one more chunk is stored, and see that the note reaches the disk."""
        self.chunks.append(chunk)
        with (self.folder / _JOURNAL).open("a") as journal:
            journal.write(json.dumps(asdict(chunk)) + "\n")
            journal.flush()
            os.fsync(journal.fileno())

    def back_to(self, count: int) -> None:
        """Forget all chunks from number `count` on, so that they are made again."""
        kept, self.chunks = self.chunks[:count], []
        (self.folder / _JOURNAL).write_text(self.head + "\n")
        for chunk in kept:
            self.add(chunk)

    def publish(self) -> None:
        """Give the finished content its name; what had the name goes only once the new one stands there."""
        old = self.folder / "old"
        if self.out.exists():
            shutil.rmtree(old, ignore_errors=True)
            self.out.rename(old)
        self.content.rename(self.out)
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this run alone. Raises DataError while another run writes to the same place."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            _lock(lock.fileno(), self.out)
            try:
                yield
            finally:
                self._tidy()

    def _begin(self) -> None:
        shutil.rmtree(self.content, ignore_errors=True)
        self.content.mkdir(parents=True)
        (self.folder / _JOURNAL).write_text(self.head + "\n")

    def _tidy(self) -> None:
        """Remove the folder if nothing in it is worth going on from."""
        if not self.chunks:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _lines(self) -> list[str]:
        """Return the journal's whole lines; a last one without its end was cut off by the kill."""
        with contextlib.suppress(OSError):
            return (self.folder / _JOURNAL).read_text().split("\n")[:-1]
        return []


def _lock(fd: int, out: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two runs at once are the user's to avoid
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DataError(f"another run is writing {out}") from error
