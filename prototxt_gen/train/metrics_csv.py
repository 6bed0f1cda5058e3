"""The table of metrics, a CSV file: one row per iteration, readable during training, and continued by a resumed run."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from prototxt_gen.common import files
from prototxt_gen.common.errors import PrototxtGenError

FIRST_COLUMNS = ("iteration", "seconds", "loss", "rate")
_FLUSH_SECONDS = 2.0
Row = dict[str, str]


class MetricsTable:
    """A CSV file to which rows are appended. A row with a new column name adds the column to the whole file."""

    def __init__(self, path: Path, keep_below: int = 0) -> None:
        """Open the file. Rows of an earlier run are kept if their iteration is below `keep_below`."""
        self.path = path
        self.columns: list[str] = list(FIRST_COLUMNS)
        rows = [row for row in read_metrics(path) if int(row["iteration"]) < keep_below]
        self.seconds_before = float(rows[-1]["seconds"]) if rows else 0.0
        self._started = self._flushed = time.monotonic()
        self._rewrite(rows)

    def add(self, values: Mapping[str, float]) -> None:
        """Append a row; `values` must contain "iteration"."""
        seconds = self.seconds_before + time.monotonic() - self._started
        row = {name: _format(value) for name, value in values.items()} | {"seconds": f"{seconds:.3f}"}
        if not self._has_columns_for(row):
            self.close()
            self._rewrite(list(read_metrics(self.path)), row)
        self._writer.writerow(row)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def _has_columns_for(self, row: Row) -> bool:
        return row.keys() <= set(self.columns)

    def _rewrite(self, rows: list[Row], *more: Row) -> None:
        """Rewrite the file with all columns, and open it for appending."""
        names = [name for row in (*rows, *more) for name in row]
        self.columns = list(dict.fromkeys([*self.columns, *names]))
        with files.replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        self._file: IO[str] = self.path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, self.columns)

    def start_new_file(self) -> None:
        """Start a new file without the earlier rows, because the old file has been removed."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rewrite([])

    def flush(self) -> None:
        """Flush the rows written so far to the file."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


def read_metrics(path: Path) -> Iterator[Row]:
    """Yield the rows of a metrics file without empty fields; a last line that was cut off by a kill is skipped."""
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


def _format(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.7g}"
