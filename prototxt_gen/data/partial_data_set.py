"""An unfinished data set: a folder beside the result, with a journal from which an interrupted run continues.

The journal's first line holds the arguments, each further line one chunk of samples that is safely stored. A chunk is
written before its line, so after a kill at any moment at most one chunk is written twice, with the same content.
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

from prototxt_gen.common.files import followed, writing_errors
from prototxt_gen.data.data_errors import DataError

_JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Chunk:
    """The content of a chunk: number of samples, checksum, images that were skipped, number of samples per shape."""

    rows: int
    crc: int
    broken: tuple[str, ...] = ()
    shapes: Mapping[str, int] = field(default_factory=dict)


class PartialDataSet:
    """The folder `.OUT.partial` and the finished chunks that its journal lists."""

    def __init__(self, out: Path, arguments: Mapping[str, Any]) -> None:
        with writing_errors(out):
            self.out, self._target = out, followed(out)
        self.folder = self._target.parent / f".{self._target.name}.partial"
        self.content = self.folder / "content"
        self.header = json.dumps(dict(arguments), sort_keys=True)
        self.chunks: list[Chunk] = []

    def resume_or_begin(self) -> None:
        """Continue where a run with equal arguments stopped, or start again."""
        lines = self._lines()
        if not lines or lines[0] != self.header or not self.content.is_dir():
            self._begin()
            return
        for line in lines[1:]:
            self.chunks.append(Chunk(**json.loads(line)))

    def add(self, chunk: Chunk) -> None:
        """Add a stored chunk to the journal and flush it to the disk."""
        self.chunks.append(chunk)
        with (self.folder / _JOURNAL).open("a") as journal:
            journal.write(json.dumps(asdict(chunk)) + "\n")
            journal.flush()
            os.fsync(journal.fileno())

    def drop_chunks_from(self, count: int) -> None:
        """Remove the chunks from number `count` on from the journal, so that they are written again."""
        kept, self.chunks = self.chunks[:count], []
        (self.folder / _JOURNAL).write_text(self.header + "\n")
        for chunk in kept:
            self.add(chunk)

    def publish(self) -> None:
        """Rename the finished content to its final name; an existing data set is removed only afterwards.

        Where the name is a symbolic link, the folder that it points to is the data set.
        """
        old = self.folder / "old"
        if self._target.exists():
            shutil.rmtree(old, ignore_errors=True)
            self._target.rename(old)
        self.content.rename(self._target)
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for this run. Raises DataError while another run writes to the same path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            _lock(lock.fileno(), self.out)
            try:
                yield
            finally:
                self._remove_if_empty()

    def _begin(self) -> None:
        shutil.rmtree(self.content, ignore_errors=True)
        self.content.mkdir(parents=True)
        (self.folder / _JOURNAL).write_text(self.header + "\n")

    def _remove_if_empty(self) -> None:
        """Remove the folder if it contains no finished chunk."""
        if not self.chunks:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _lines(self) -> list[str]:
        """Return the complete lines of the journal; a last line without line end was cut off by a kill."""
        with contextlib.suppress(OSError):
            return (self.folder / _JOURNAL).read_text().split("\n")[:-1]
        return []


def _lock(fd: int, out: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no fcntl: there, concurrent runs are not detected
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DataError(f"another run is writing {out}") from error
