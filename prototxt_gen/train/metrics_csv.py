"""metrics.csv: one row an iteration, readable at any moment, going on where a resumed run goes on."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from prototxt_gen.common import files
from prototxt_gen.common.errors import PrototxtGenError

FIRST = ("iteration", "seconds", "loss", "rate")
_FLUSH_SECONDS = 2.0
Row = dict[str, str]


class Table:
    """A growing CSV file. Columns are added when a name turns up that was not there before."""

    def __init__(self, path: Path, keep_below: int = 0) -> None:
        """Keep the rows of an earlier run below this iteration: those from it on will come again."""
        self.path = path
        self.columns: list[str] = list(FIRST)
        rows = [row for row in read(path) if int(row["iteration"]) < keep_below]
        self.seconds_before = float(rows[-1]["seconds"]) if rows else 0.0
        self._started = self._flushed = time.monotonic()
        self._rewrite(rows)

    def add(self, values: Mapping[str, float]) -> None:
        """Append a row; `values` hold "iteration"."""
        seconds = self.seconds_before + time.monotonic() - self._started
        row = {name: _text(value) for name, value in values.items()} | {"seconds": f"{seconds:.3f}"}
        if not self._knows(row):
            self.close()
            self._rewrite(list(read(self.path)), row)
        self._writer.writerow(row)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def _knows(self, row: Row) -> bool:
        return row.keys() <= set(self.columns)

    def _rewrite(self, rows: list[Row], *more: Row) -> None:
        """Write the file anew with all columns, and open it for appending."""
        names = [name for row in (*rows, *more) for name in row]
        self.columns = list(dict.fromkeys([*self.columns, *names]))
        with files.replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        self._file: IO[str] = self.path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, self.columns)

    def begin_anew(self) -> None:
        """Go on in a new file, without the rows so far: the one that was written to has been removed."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rewrite([])

    def flush(self) -> None:
        """Put the rows written so far into the file."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


def read(path: Path) -> Iterator[Row]:
    """Yield the rows of a metrics file, without their empty fields; a last line that a killed run cut is left out."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is None:
            return
        if "iteration" not in reader.fieldnames:
            raise PrototxtGenError(f"{path}: it is not a metrics file: it has no column 'iteration'")
        for row in reader:
            if None not in row.values() and row["iteration"].isdigit():
                yield {name: value for name, value in row.items() if value}


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.7g}"
