"""Writers of the two data set formats that Caffe reads, LMDB and HDF5. They write in chunks and read back to check.

Both writers take a chunk of records, store it safely, and return its checksum; `checksums` reads the data set again.
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
from prototxt_gen.data.open_files import import_h5py, import_lmdb

Array = npt.NDArray[Any]

LMDB_KEY_BYTES = 511  # MDB_MAXKEYSIZE: LMDB's own limit
LMDB_FIRST_MAP = 1 << 26
HDF5_BLOB_BYTES = (1 << 31) - 1  # Blob::Reshape counts in int (src/caffe/blob.cpp)


@dataclass(frozen=True)
class Record:
    """One sample ready to store: `image` is channels x height x width; `encoded` are the bytes of an image file."""

    position: int
    key: str
    label: int
    image: Array
    encoded: bytes | None = None

    def lmdb_key(self) -> bytes:
        """Return the LMDB key as convert_imageset forms it: eight digits, and the sample's name if it has one."""
        name = f"{self.position:08d}_{self.key}" if self.key else f"{self.position:08d}"
        return os.fsencode(name)[:LMDB_KEY_BYTES]

    def datum_bytes(self) -> bytes:
        """Return the sample as an encoded Datum message."""
        if self.encoded is not None:
            return datum.encode(datum.Datum(data=self.encoded, label=self.label, encoded=True))
        return datum.encode(datum.from_array(self.image, self.label))

    def lmdb_size(self) -> int:
        """Return the approximate bytes in an LMDB, where values above half a page take whole pages."""
        size = len(self.encoded) if self.encoded is not None else self.image.nbytes
        return size + 100 if size < 1800 else -(-(size + 60) // 4096) * 4096 + 100


class Writer(Protocol):
    """A writer that `make` uses. `chunk` is the number of samples that are stored at once."""

    chunk: int

    def write(self, number: int, records: Sequence[Record]) -> int:
        """Store chunk `number` permanently and return its checksum."""

    def finish(self, chunks: int) -> None:
        """Complete the data set of `chunks` chunks."""

    def close(self) -> None:
        """Close the files, whether complete or not."""

    def checksums(self, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Read back and yield (samples, checksum) of chunks with these `rows`, and one more pair for extra samples."""


class LmdbWriter:
    """Writes an LMDB in Caffe's format. The map grows as needed (DoubleMapSize in src/caffe/util/db_lmdb.cpp)."""

    def __init__(self, folder: Path, chunk: int = 256) -> None:
        self.folder, self.chunk = folder, chunk
        self.lmdb = import_lmdb()
        self.env = self.lmdb.open(str(folder), map_size=LMDB_FIRST_MAP)

    def write(self, number: int, records: Sequence[Record]) -> int:
        """Store the records in one transaction."""
        pairs = [(record.lmdb_key(), record.datum_bytes()) for record in records]
        try:
            while not self._try_to_store(pairs):
                self.env.set_mapsize(self.env.info()["map_size"] * 2)
        except self.lmdb.Error as error:
            raise DataError(f"cannot write the LMDB: {error}; run again to continue from here") from error
        crc = 0
        for key, value in pairs:
            crc = zlib.crc32(value, zlib.crc32(key, crc))
        return crc

    def _try_to_store(self, pairs: Sequence[tuple[bytes, bytes]]) -> bool:
        try:
            with self.env.begin(write=True) as txn:
                for key, value in pairs:
                    txn.put(key, value)
        except self.lmdb.MapFullError:
            return False
        return True

    def finish(self, chunks: int) -> None:
        """Close the environment; every transaction is already on the disk."""
        self.close()

    def close(self) -> None:
        """Close the environment; it must be closed before the data set is read back."""
        self.env.close()

    def checksums(self, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Read back keys and values in the order in which Caffe reads them."""
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
    """Writes one HDF5 file per chunk, with `data` float32 N x C x H x W and `label` float32 N, and `list.txt`.

    The list holds absolute paths below `final`, because HDF5Data opens them relative to the working folder.
    """

    def __init__(self, folder: Path, final: Path, sample_bytes: int, file_bytes: int) -> None:
        if len(str(final.absolute()).split()) != 1:
            raise DataError(
                f"{final.absolute()}: Caffe's HDF5Data splits its list at spaces; use a path without spaces"
            )
        self.folder, self.final = folder, final.absolute()
        self.chunk = max(1, min(file_bytes, HDF5_BLOB_BYTES) // sample_bytes)

    def write(self, number: int, records: Sequence[Record]) -> int:
        """Write the chunk's file under a temporary name first, because an incomplete HDF5 file is unreadable."""
        data = np.stack([record.image for record in records]).astype(np.float32)
        label = np.asarray([record.label for record in records], np.float32)
        file = self.folder / _file_name(number)
        try:
            with import_h5py().File(file.with_suffix(".tmp"), "w") as stored:
                stored.create_dataset("data", data=data)
                stored.create_dataset("label", data=label)
        except (OSError, RuntimeError) as error:
            raise DataError(f"cannot write {file.name}: {error}; run again to continue from here") from error
        file.with_suffix(".tmp").replace(file)
        return zlib.crc32(label.data, zlib.crc32(data.data))

    def finish(self, chunks: int) -> None:
        """Write the list of the files; a chunk with only broken images has no file."""
        lines = [f"{self.final / _file_name(n)}\n" for n in range(chunks) if (self.folder / _file_name(n)).is_file()]
        (self.folder / "list.txt").write_text("".join(lines))

    def close(self) -> None:
        """Do nothing: no file stays open between chunks."""

    def checksums(self, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Read back every file."""
        for number, count in enumerate(rows):
            yield _file_checksum(self.folder / _file_name(number)) if count else (0, 0)


def _file_name(number: int) -> str:
    return f"part_{number:05d}.h5"


def _file_checksum(file: Path) -> tuple[int, int]:
    with import_h5py().File(file, "r", locking=False) as stored:
        data, label = stored["data"][()], stored["label"][()]
    return len(data), zlib.crc32(label.data, zlib.crc32(data.data))
