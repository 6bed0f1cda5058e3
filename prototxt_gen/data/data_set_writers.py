"""The two forms Caffe reads data from, written chunk by chunk and read back for checking.

Both writers take a chunk of records, store it safely, and return its checksum; `checksums` reads the result anew.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prototxt_gen.data import datum
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.data_set_reader import hdf5_package, lmdb_package

Array = npt.NDArray[Any]

LMDB_KEY_BYTES = 511  # MDB_MAXKEYSIZE: LMDB's own limit
LMDB_FIRST_MAP = 1 << 26
HDF5_BLOB_BYTES = (1 << 31) - 1  # Blob::Reshape counts in int (src/caffe/blob.cpp)


@dataclass(frozen=True)
class Record:
    """One sample ready to store: `image` channels x height x width, or `encoded`, a picture file's bytes."""

    position: int
    key: str
    label: int
    image: Array
    encoded: bytes | None = None

    def lmdb_key(self) -> bytes:
        """Return the key as convert_imageset forms it: eight digits, and the sample's name if it has one."""
        name = f"{self.position:08d}_{self.key}" if self.key else f"{self.position:08d}"
        return os.fsencode(name)[:LMDB_KEY_BYTES]

    def message(self) -> bytes:
        """Return the Datum message."""
        if self.encoded is not None:
            return datum.encode(datum.Datum(data=self.encoded, label=self.label, encoded=True))
        return datum.encode(datum.from_array(self.image, self.label))

    def lmdb_bytes(self) -> int:
        """Return about how much layer type the record takes: LMDB gives values above half a page pages of their own."""
        size = len(self.encoded) if self.encoded is not None else self.image.nbytes
        return size + 100 if size < 1800 else -(-(size + 60) // 4096) * 4096 + 100


class Writer(Protocol):
    """What `make` needs of a form. `chunk` is the number of samples stored at once."""

    chunk: int

    def write(self, number: int, records: Sequence[Record]) -> int:
        """Store chunk `number` for good and return its checksum."""

    def finish(self, chunks: int) -> None:
        """Complete the set of `chunks` chunks."""

    def close(self) -> None:
        """Let go of the files, complete or not."""

    def checksums(self, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield (samples, checksum) read back for chunks of so many `rows`; one more pair if there are more."""


class LmdbWriter:
    """An LMDB in Caffe's layout; the map grows as it fills (DoubleMapSize in src/caffe/util/db_lmdb.cpp)."""

    def __init__(self, folder: Path, chunk: int = 256) -> None:
        self.folder, self.chunk = folder, chunk
        self.lmdb = lmdb_package()
        self.env = self.lmdb.open(str(folder), map_size=LMDB_FIRST_MAP)

    def write(self, number: int, records: Sequence[Record]) -> int:
        """Store the records in one transaction."""
        pairs = [(record.lmdb_key(), record.message()) for record in records]
        try:
            while not self._stored(pairs):
                self.env.set_mapsize(self.env.info()["map_size"] * 2)
        except self.lmdb.Error as error:
            raise DataError(f"cannot write the LMDB: {error}; run again to go on from here") from error
        crc = 0
        for key, value in pairs:
            crc = zlib.crc32(value, zlib.crc32(key, crc))
        return crc

    def _stored(self, pairs: Sequence[tuple[bytes, bytes]]) -> bool:
        try:
            with self.env.begin(write=True) as txn:
                for key, value in pairs:
                    txn.put(key, value)
        except self.lmdb.MapFullError:
            return False
        return True

    def finish(self, chunks: int) -> None:
        """Every transaction is on the disk already; only the environment is closed."""
        self.close()

    def close(self) -> None:
        """Close the environment; it may not be open when the set is read back."""
        self.env.close()

    def checksums(self, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Read keys and values in the order Caffe will."""
        with self.lmdb.open(str(self.folder), readonly=True, lock=False) as env, env.begin(buffers=True) as txn:
            pairs = iter(txn.cursor())
            for count in rows:
                yield _checksum_of(pairs, count)
            extra = _checksum_of(pairs, 1)
            if extra[0]:
                yield extra


def _checksum_of(pairs: Iterator[tuple[Any, Any]], count: int) -> tuple[int, int]:
    crc = seen = 0
    while seen < count and (pair := next(pairs, None)) is not None:
        crc = zlib.crc32(pair[1], zlib.crc32(pair[0], crc))
        seen += 1
    return seen, crc


class Hdf5Writer:
    """One HDF5 file per chunk, `data` float32 N x C x H x W and `label` float32 N, and `list.txt` naming them.

    The list holds absolute paths below `final`, as HDF5Data opens them from wherever Caffe is started.
    """

    def __init__(self, folder: Path, final: Path, sample_bytes: int, file_bytes: int) -> None:
        if len(str(final.absolute()).split()) != 1:
            raise DataError(f"{final.absolute()}: Caffe's HDF5Data splits its list at blanks; use a path without")
        self.folder, self.final = folder, final.absolute()
        self.chunk = max(1, min(file_bytes, HDF5_BLOB_BYTES) // sample_bytes)

    def write(self, number: int, records: Sequence[Record]) -> int:
        """Write the chunk's file under another name first: an HDF5 file cut short cannot be read at all."""
        data = np.stack([record.image for record in records]).astype(np.float32)
        label = np.asarray([record.label for record in records], np.float32)
        file = self.folder / _file_name(number)
        try:
            with hdf5_package().File(file.with_suffix(".tmp"), "w") as stored:
                stored.create_dataset("data", data=data)
                stored.create_dataset("label", data=label)
        except (OSError, RuntimeError) as error:
            raise DataError(f"cannot write {file.name}: {error}; run again to go on from here") from error
        file.with_suffix(".tmp").replace(file)
        return zlib.crc32(label.data, zlib.crc32(data.data))

    def finish(self, chunks: int) -> None:
        """Write the list of the files there are; a chunk of nothing but broken pictures has none."""
        lines = [f"{self.final / _file_name(n)}\n" for n in range(chunks) if (self.folder / _file_name(n)).is_file()]
        (self.folder / "list.txt").write_text("".join(lines))

    def close(self) -> None:
        """Do nothing: no file stays open between chunks."""

    def checksums(self, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Read every file back."""
        for number, count in enumerate(rows):
            yield _file_checksum(self.folder / _file_name(number)) if count else (0, 0)


def _file_name(number: int) -> str:
    return f"part_{number:05d}.h5"


def _file_checksum(file: Path) -> tuple[int, int]:
    with hdf5_package().File(file, "r", locking=False) as stored:
        data, label = stored["data"][()], stored["label"][()]
    return len(data), zlib.crc32(label.data, zlib.crc32(data.data))
