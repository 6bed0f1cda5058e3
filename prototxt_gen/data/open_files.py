"""Opening of LMDB folders and HDF5 files: each file once per process, also after a fork."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from prototxt_gen.common.errors import RuntimeMissingError
from prototxt_gen.data.data_errors import DataError

_OPEN_ENVS: dict[tuple[int, int], Any] = {}
"""Open LMDB environments by (device, inode) of their data.mdb."""


def lmdb_env(path: Path) -> Any:
    """Return the open environment of an LMDB folder: one per process and file, as LMDB requires."""
    file = path / "data.mdb"
    try:
        stat = file.stat()
    except OSError as error:
        raise DataError(f"{path} is not an LMDB: {file.name}: {error.strerror}") from error
    identity = (stat.st_dev, stat.st_ino)
    if identity not in _OPEN_ENVS:
        _OPEN_ENVS[identity] = _open_lmdb(path)
    return _OPEN_ENVS[identity]


def _open_lmdb(path: Path) -> Any:
    # Without lock: nobody writes to a finished data set, it may be on a read-only disk, and Caffe may have it open.
    lmdb = import_lmdb()
    try:
        env = lmdb.open(str(path), readonly=True, lock=False, readahead=False, max_spare_txns=4)
    except lmdb.Error as error:
        raise DataError(f"cannot open {path} as LMDB: {error}") from error
    size, needed = (path / "data.mdb").stat().st_size, (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if size < needed:  # reading beyond the end of the file would end the process with a bus error
        env.close()
        raise DataError(f"{path} is cut short: its data.mdb has {size} bytes of {needed}")
    return env


def _close_inherited_files() -> None:
    """Close the parent's files after a fork: LMDB forbids their use in a child, and refuses to open them twice."""
    for env in _OPEN_ENVS.values():
        env.close()
    _OPEN_ENVS.clear()
    _open_hdf5.cache_clear()


def import_lmdb() -> Any:
    """Return the package lmdb. Raises RuntimeMissingError if it is not installed."""
    try:
        import lmdb
    except ImportError as error:
        raise RuntimeMissingError("LMDB data sets need the package lmdb: pip install lmdb") from error
    return lmdb


def import_h5py() -> Any:
    """Return the package h5py. Raises RuntimeMissingError if it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise RuntimeMissingError("HDF5 data sets need the package h5py: pip install h5py") from error
    return h5py


def hdf5_file(path: Path) -> Any:
    """Return an open HDF5 file; each process opens a file only once."""
    try:
        stat = path.stat()
        return _open_hdf5(str(path), (os.getpid(), stat.st_dev, stat.st_ino, stat.st_mtime_ns))
    except OSError as error:
        raise DataError(f"cannot read {path} as HDF5: {error.strerror or error}") from error


@lru_cache(maxsize=16)
def _open_hdf5(path: str, _identity: tuple[int, ...]) -> Any:
    return import_h5py().File(path, "r", locking=False)


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_close_inherited_files)
