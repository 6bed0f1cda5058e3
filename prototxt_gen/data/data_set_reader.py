"""Random access to data sets: LMDB, HDF5, image lists, and every source that `make` can convert.

A data set is a sequence of (array, label). The array is channels x height x width, uint8 where pixels are stored as
bytes (BGR where an image was decoded), else float32. The order is Caffe's: an LMDB by key, a list by line.
Data sets can be pickled and used after a fork: each process opens the files itself when it first reads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.data import datum, images
from prototxt_gen.data.data_errors import DataError, abbreviated
from prototxt_gen.data.open_files import hdf5_file, lmdb_env
from prototxt_gen.data.source_detection import detect_kind, open_source
from prototxt_gen.data.sources import SampleSource, list_source, read_lines

Array = npt.NDArray[Any]

_HDF5_BLOCK = 64


class Dataset:
    """A sequence of (channels x height x width, label). `kind` and `path` are what it was opened from."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind

    def __len__(self) -> int:
        raise NotImplementedError

    def sample(self, index: int) -> tuple[Array, int]:
        """Return one sample; `index` must be from 0 to len - 1."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Array, int]:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.sample(position)

    def __iter__(self) -> Iterator[tuple[Array, int]]:
        return (self.sample(index) for index in range(len(self)))


class LmdbDataset(Dataset):
    """The datums of an LMDB in the order of DataLayer's cursor (src/caffe/layers/data_layer.cpp).

    `color` decodes encoded datums to 3 channels (True, force_color), 1 (False, force_gray) or unchanged (None).
    """

    def __init__(self, path: Path, color: bool | None = None) -> None:
        super().__init__(path, "lmdb")
        self.color = color
        self._keys: list[bytes] | None = None
        self._env: tuple[int, Any] = (0, None)  # (process that opened it, environment)

    @property
    def env(self) -> Any:
        """The LMDB environment, opened by this process."""
        if self._env[0] != os.getpid():
            self._env = (os.getpid(), lmdb_env(self.path))
        return self._env[1]

    def keys(self) -> list[bytes]:
        """Return all keys in order. They are read once, without the values."""
        if self._keys is None:
            with self.env.begin() as txn:
                self._keys = list(txn.cursor().iternext(keys=True, values=False))
        return self._keys

    def __len__(self) -> int:
        return len(self.keys()) if self._keys is not None else int(self.env.stat()["entries"])

    def datum(self, index: int) -> datum.Datum:
        """Return one sample as a Datum."""
        key = self.keys()[index]
        with self.env.begin() as txn:
            message = txn.get(key)
        with self._naming_key(index):
            return datum.decode(message)

    def sample(self, index: int) -> tuple[Array, int]:
        decoded = self.datum(index)
        with self._naming_key(index):
            return decoded.array(self.color), decoded.label

    @contextlib.contextmanager
    def _naming_key(self, index: int) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise DataError(f"{self.path}, key {self.keys()[index].decode(errors='replace')}: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_keys": None, "_env": (0, None)}


class Hdf5Dataset(Dataset):
    """The rows of several HDF5 files in the order of HDF5DataLayer (src/caffe/layers/hdf5_data_layer.cpp).

    `tops` are the names of the data sets in the files. `row` returns one row of each; `sample` returns the first two as
    (array, label).
    """

    def __init__(self, path: Path, files: Sequence[Path], tops: Sequence[str] = ("data", "label")) -> None:
        super().__init__(path, "hdf5")
        self.files, self.tops = tuple(files), tuple(tops)
        self._row_ends: Array | None = None
        self._cached_rows: tuple[int, tuple[Array, ...]] = (0, ())  # (index of its first row, rows of every top)
        self._last_row = -2

    def row_ends(self) -> Array:
        """Return, for each file, the number of rows up to its end."""
        if self._row_ends is None:
            self._row_ends = np.cumsum([_hdf5_rows(file, self.tops) for file in self.files])
        return self._row_ends

    def __len__(self) -> int:
        return int(self.row_ends()[-1])

    def row(self, index: int) -> tuple[Array, ...]:
        """Return one row of every top, float32, each without the first axis.

        For rows read in order, several rows are read at once and cached, because HDF5 is slow row by row.
        """
        start, rows = self._cached_rows
        if not rows or not start <= index < start + len(rows[0]):
            start, rows = self._cached_rows = (
                index,
                self._rows(index, _HDF5_BLOCK if index == self._last_row + 1 else 1),
            )
        self._last_row = index
        return tuple(top[index - start] for top in rows)

    def _rows(self, index: int, count: int) -> tuple[Array, ...]:
        row_ends = self.row_ends()
        at = int(np.searchsorted(row_ends, index, "right"))
        local = index - (int(row_ends[at - 1]) if at else 0)
        stored = hdf5_file(self.files[at])
        return tuple(np.asarray(stored[top][local : local + count], np.float32) for top in self.tops)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_block": (0, ())}

    def sample(self, index: int) -> tuple[Array, int]:
        row = self.row(index)
        if len(row) < 2 or row[1].size != 1:
            raise DataError(
                f"{self.path}: needs a data set of one label per row, has {abbreviated(self.tops)}; use row()"
            )
        return row[0], int(row[1].reshape(()))


class SourceDataset(Dataset):
    """The samples of a source, optionally resized to `size` = (height, width) as ImageDataLayer does."""

    def __init__(self, path: Path, source: SampleSource, size: tuple[int, int] | None = None) -> None:
        super().__init__(path, source.kind)
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int) -> tuple[Array, int]:
        decoded = self.source[index]
        image = images.resize(decoded.image, self.size) if self.size else decoded.image
        return images.to_chw(image), decoded.label


def open_dataset(
    path: str | Path,
    kind: str | None = None,
    *,
    color: bool | None = None,
    size: tuple[int, int] | None = None,
    root: str | None = None,
    split: str | None = None,
    tops: Sequence[str] = ("data", "label"),
) -> Dataset:
    """Open an LMDB folder, an HDF5 file, a list of HDF5 files, an image list, or any source that `make` takes.

    `kind` overrides the detected kind. For Caffe's layers: Data is "lmdb" with `color` from force_color and force_gray;
    HDF5Data is "hdf5-list" with `tops`; ImageData is "list" with `root` = root_folder ("" for none), `size` =
    (new_height, new_width) and `color` = is_color. Raises DataError if the data set cannot be opened.
    """
    location = Path(path)
    kind = kind or detect_kind(location)
    if kind == "lmdb":
        lmdb_env(location)
        return LmdbDataset(location, color)
    if kind in ("hdf5", "hdf5-list"):
        dataset = Hdf5Dataset(location, [location] if kind == "hdf5" else hdf5_list(location), tops)
        dataset.row_ends()
        return dataset
    if kind == "list":
        return SourceDataset(location, list_source(location, root, color is not False), size)
    return SourceDataset(location, open_source(location, kind, split, root, color is not False), size)


def hdf5_list(path: Path) -> list[Path]:
    """Return the HDF5 files that the list of an HDF5Data layer names; missing ones are looked for beside the list.

    Caffe splits the list at white space, so a path that contains a space counts as two names.
    """
    names = " ".join(read_lines(path)).split()
    if not names:
        raise DataError(f"{path} lists no HDF5 files")
    files = [next((f for f in (Path(n), path.parent / n, path.parent / Path(n).name) if f.is_file()), None)
             for n in names]  # fmt: skip
    missing_names = [name for name, file in zip(names, files, strict=True) if file is None]
    if missing_names:
        raise DataError(f"{path} lists files that do not exist: {abbreviated(missing_names)}")
    return [file for file in files if file is not None]


def _hdf5_rows(path: Path, tops: Sequence[str]) -> int:
    stored = hdf5_file(path)
    missing_names = [top for top in tops if top not in stored]
    if missing_names:
        raise DataError(f"{path} has no data set {abbreviated(missing_names)}; it has {abbreviated(sorted(stored))}")
    counts = {int(stored[top].shape[0]) if stored[top].shape else 0 for top in tops}
    if len(counts) != 1 or counts == {0}:
        raise DataError(
            f"{path}: data sets {abbreviated(tops)} have {sorted(counts)} rows; Caffe needs one number above 0"
        )
    return counts.pop()
