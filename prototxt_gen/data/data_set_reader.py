"""Random access to data sets: LMDB, HDF5, image lists, and everything that can be made into one.

A data set is a sequence of (array, label): the array channels x height x width, uint8 where pixels are stored as
bytes (BGR where a picture was decoded), float32 otherwise. Order is Caffe's: an LMDB's by key, a list's by line.
Data sets can be pickled and used after a fork: files are opened by the process that reads, when it first does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.common.errors import RuntimeMissingError
from prototxt_gen.data import datum, images
from prototxt_gen.data.data_errors import DataError, named
from prototxt_gen.data.source_detection import kind_of, open_source
from prototxt_gen.data.sources import Source, list_source, read_lines

Array = npt.NDArray[Any]

_HDF5_BLOCK = 64
_ENVS: dict[tuple[int, int], Any] = {}


class Dataset:
    """A sequence of (channels x height x width, label). `kind` and `path` say what it was opened from."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind

    def __len__(self) -> int:
        raise NotImplementedError

    def sample(self, index: int) -> tuple[Array, int]:
        """Return one sample; `index` is from 0 to len - 1."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Array, int]:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self.sample(position)

    def __iter__(self) -> Iterator[tuple[Array, int]]:
        return (self.sample(index) for index in range(len(self)))


class LmdbDataset(Dataset):
    """Datums of an LMDB, in the order of DataLayer's cursor (src/caffe/layers/data_layer.cpp).

    `color`: decode encoded datums to 3 channels (True, force_color), 1 (False, force_gray) or as they are (None).
    """

    def __init__(self, path: Path, color: bool | None = None) -> None:
        super().__init__(path, "lmdb")
        self.color = color
        self._keys: list[bytes] | None = None
        self._env: tuple[int, Any] = (0, None)  # (process that opened it, environment)

    @property
    def env(self) -> Any:
        """Return the environment, opened by this process."""
        if self._env[0] != os.getpid():
            self._env = (os.getpid(), lmdb_env(self.path))
        return self._env[1]

    def keys(self) -> list[bytes]:
        """Return all keys in order; read once, without touching the values."""
        if self._keys is None:
            with self.env.begin() as txn:
                self._keys = list(txn.cursor().iternext(keys=True, values=False))
        return self._keys

    def __len__(self) -> int:
        return len(self.keys()) if self._keys is not None else int(self.env.stat()["entries"])

    def datum(self, index: int) -> datum.Datum:
        """Return one sample as it is stored."""
        key = self.keys()[index]
        with self.env.begin() as txn:
            message = txn.get(key)
        with self._naming(index):
            return datum.decode(message)

    def sample(self, index: int) -> tuple[Array, int]:
        found = self.datum(index)
        with self._naming(index):
            return found.array(self.color), found.label

    @contextlib.contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise DataError(f"{self.path}, key {self.keys()[index].decode(errors='replace')}: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_keys": None, "_env": (0, None)}


class Hdf5Dataset(Dataset):
    """Rows of HDF5 files one after another, as HDF5DataLayer goes through them (src/caffe/layers/hdf5_data_layer.cpp).

    `tops`: the data sets' names in the files. `row` gives one row of each; `sample` the first two as (array, label).
    """

    def __init__(self, path: Path, files: Sequence[Path], tops: Sequence[str] = ("data", "label")) -> None:
        super().__init__(path, "hdf5")
        self.files, self.tops = tuple(files), tuple(tops)
        self._ends: Array | None = None
        self._block: tuple[int, tuple[Array, ...]] = (0, ())  # (index of its first row, rows of every top)
        self._last = -2

    def ends(self) -> Array:
        """Return, for each file, the number of rows up to and with it."""
        if self._ends is None:
            self._ends = np.cumsum([_hdf5_rows(file, self.tops) for file in self.files])
        return self._ends

    def __len__(self) -> int:
        return int(self.ends()[-1])

    def row(self, index: int) -> tuple[Array, ...]:
        """Return one row of every top, float32, each without the first axis.

        A row that follows the one asked for before brings a block of its successors along: row by row, HDF5 is slow.
        """
        start, rows = self._block
        if not rows or not start <= index < start + len(rows[0]):
            start, rows = self._block = (index, self._rows(index, _HDF5_BLOCK if index == self._last + 1 else 1))
        self._last = index
        return tuple(top[index - start] for top in rows)

    def _rows(self, index: int, count: int) -> tuple[Array, ...]:
        ends = self.ends()
        at = int(np.searchsorted(ends, index, "right"))
        local = index - (int(ends[at - 1]) if at else 0)
        stored = hdf5_file(self.files[at])
        return tuple(np.asarray(stored[top][local : local + count], np.float32) for top in self.tops)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_block": (0, ())}

    def sample(self, index: int) -> tuple[Array, int]:
        row = self.row(index)
        if len(row) < 2 or row[1].size != 1:
            raise DataError(f"{self.path}: needs a data set of one label per row, has {named(self.tops)}; use row()")
        return row[0], int(row[1].reshape(()))


class SourceDataset(Dataset):
    """The samples of a source, unconverted, optionally resized to `size` = (height, width) as ImageDataLayer does."""

    def __init__(self, path: Path, source: Source, size: tuple[int, int] | None = None) -> None:
        super().__init__(path, source.kind)
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int) -> tuple[Array, int]:
        found = self.source[index]
        image = images.resize(found.image, self.size) if self.size else found.image
        return images.to_chw(image), found.label


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
    """Open an LMDB folder, an HDF5 file or list of them, an image list, or any source `make` takes.

    `kind` overrides what is found by looking. For Caffe's layers: Data is "lmdb" with `color` from force_color and
    force_gray; HDF5Data is "hdf5-list" with `tops`; ImageData is "list" with `root` = root_folder ("" for none),
    `size` = (new_height, new_width) and `color` = is_color. Raises DataError, in one sentence.
    """
    where = Path(path)
    kind = kind or kind_of(where)
    if kind == "lmdb":
        lmdb_env(where)
        return LmdbDataset(where, color)
    if kind in ("hdf5", "hdf5-list"):
        dataset = Hdf5Dataset(where, [where] if kind == "hdf5" else hdf5_list(where), tops)
        dataset.ends()
        return dataset
    if kind == "list":
        return SourceDataset(where, list_source(where, root, color is not False), size)
    return SourceDataset(where, open_source(where, kind, split, root, color is not False), size)


def hdf5_list(path: Path) -> list[Path]:
    """Return the files an HDF5Data source names. One that is gone is looked for beside the list, which may have moved.

    Caffe reads the list word by word, so a path with a blank in it is two names there.
    """
    words = " ".join(read_lines(path)).split()
    if not words:
        raise DataError(f"{path} lists no HDF5 files")
    found = [next((f for f in (Path(w), path.parent / w, path.parent / Path(w).name) if f.is_file()), None)
             for w in words]  # fmt: skip
    missing = [word for word, file in zip(words, found, strict=True) if file is None]
    if missing:
        raise DataError(f"{path} lists files that do not exist: {named(missing)}")
    return [file for file in found if file is not None]


def lmdb_env(path: Path) -> Any:
    """Return the open environment of an LMDB folder: one per process and file, as LMDB asks for."""
    file = path / "data.mdb"
    try:
        stat = file.stat()
    except OSError as error:
        raise DataError(f"{path} is no LMDB: {file.name}: {error.strerror}") from error
    identity = (stat.st_dev, stat.st_ino)
    if identity not in _ENVS:
        _ENVS[identity] = _open_lmdb(path)
    return _ENVS[identity]


def _open_lmdb(path: Path) -> Any:
    # Without the lock: a finished set has no writer, may lie on a read-only disk, and Caffe may have it open as well.
    lmdb = lmdb_package()
    try:
        env = lmdb.open(str(path), readonly=True, lock=False, readahead=False, max_spare_txns=4)
    except lmdb.Error as error:
        raise DataError(f"cannot open {path} as LMDB: {error}") from error
    size, needed = (path / "data.mdb").stat().st_size, (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if size < needed:  # reading a page that is not there would end the process by a bus error
        env.close()
        raise DataError(f"{path} is cut short: its data.mdb has {size} bytes of {needed}")
    return env


def _forget_inherited() -> None:
    """Drop the parent's open files after a fork: LMDB forbids their use in a child, and refuses to open them twice."""
    for env in _ENVS.values():
        env.close()
    _ENVS.clear()
    _open_hdf5.cache_clear()


def lmdb_package() -> Any:
    """Return the module lmdb."""
    try:
        import lmdb
    except ImportError as error:
        raise RuntimeMissingError("LMDB data sets need the package lmdb: pip install lmdb") from error
    return lmdb


def hdf5_package() -> Any:
    """Return the module h5py."""
    try:
        import h5py
    except ImportError as error:
        raise RuntimeMissingError("HDF5 data sets need the package h5py: pip install h5py") from error
    return h5py


def hdf5_file(path: Path) -> Any:
    """Return an open HDF5 file, one per process and file."""
    try:
        stat = path.stat()
        return _open_hdf5(str(path), (os.getpid(), stat.st_dev, stat.st_ino, stat.st_mtime_ns))
    except OSError as error:
        raise DataError(f"cannot read {path} as HDF5: {error.strerror or error}") from error


@lru_cache(maxsize=16)
def _open_hdf5(path: str, _identity: tuple[int, ...]) -> Any:
    return hdf5_package().File(path, "r", locking=False)


def _hdf5_rows(path: Path, tops: Sequence[str]) -> int:
    stored = hdf5_file(path)
    missing = [top for top in tops if top not in stored]
    if missing:
        raise DataError(f"{path} has no data set {named(missing)}; it has {named(sorted(stored))}")
    counts = {int(stored[top].shape[0]) if stored[top].shape else 0 for top in tops}
    if len(counts) != 1 or counts == {0}:
        raise DataError(f"{path}: data sets {named(tops)} have {sorted(counts)} rows; Caffe needs one number above 0")
    return counts.pop()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_forget_inherited)
