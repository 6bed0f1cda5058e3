"""Conversion of a sample to a record ready to store: channels, size, channel order, encoding as an image file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.data import images
from prototxt_gen.data.data_errors import BrokenImageError, DataError
from prototxt_gen.data.data_set_writers import Record
from prototxt_gen.data.sources import SampleSource

Array = npt.NDArray[Any]
RecordOrReason = Record | str  # a record, or the reason why there is none

_SAMPLE_RECORDS = 8
_MAGIC_BYTES = {"png": b"\x89PNG", "jpg": b"\xff\xd8"}


@dataclass(frozen=True)
class StorageOptions:
    """How samples are stored; the arguments of `make` with the same names."""

    to: str = "lmdb"
    resize: tuple[int, int] | None = None
    shuffle_seed: int | None = None
    encoded: str | None = None
    gray: bool = False
    bgr: bool = False
    part: tuple[float, float] | None = None
    file_bytes: int = 1 << 28

    def __post_init__(self) -> None:
        for wrong, text in (
            (self.to not in ("lmdb", "hdf5"), f"to is 'lmdb' or 'hdf5', not {self.to!r}"),
            (self.encoded not in (None, "png", "jpg"), f"encoded is 'png' or 'jpg', not {self.encoded!r}"),
            (bool(self.encoded) and self.to == "hdf5", "HDF5 holds numbers only: encoded is for LMDB"),
            (self.resize is not None and min(self.resize) < 1, f"resize needs a size above 0, not {self.resize}"),
            (self.part is not None and not 0 <= self.part[0] < self.part[1] <= 1, f"part {self.part} is not in 0..1"),
        ):
            if wrong:
                raise DataError(f"data make: {text}")


class RecordMaker:
    """Returns the record for any position in the data set. Several threads may call it at the same time."""

    def __init__(self, source: SampleSource, options: StorageOptions) -> None:
        self.source, self.options = source, options
        self.order = _sample_order(len(source), options)

    def __len__(self) -> int:
        return len(self.order)

    def __call__(self, position: int) -> RecordOrReason:
        """Return the record for a position, or the reason why its image cannot be decoded."""
        try:
            return self._record(position)
        except BrokenImageError as error:
            return str(error)

    def name(self, position: int) -> str:
        """Return the name of the sample at a position, for messages."""
        return self.source.key(int(self.order[position])) or f"sample {position}"

    def sample_records(self) -> list[Record]:
        """Return a few records spread over the data set, at least one, to estimate its size."""
        spread = sorted(set(np.linspace(0, len(self) - 1, _SAMPLE_RECORDS).astype(int).tolist()))
        records = [result for result in map(self, spread) if isinstance(result, Record)]
        records = records or [result for result in map(self, range(len(self))) if isinstance(result, Record)][:1]
        if not records:
            raise DataError(f"none of the {len(self)} images can be decoded; the first: {self(0)}")
        return records

    def _record(self, position: int) -> Record:
        index = int(self.order[position])
        image = _converted(self.source.image(index), self.source.order, self.options)
        encoded = self._encoded(index, image) if self.options.encoded else None
        return Record(position, self.source.key(index), int(self.source.labels[index]), images.to_chw(image), encoded)

    def _encoded(self, index: int, image: Array) -> bytes:
        """Return the sample as an image file; a suitable file of the source is used unchanged (as in ReadImageToDatum).

        A file is not suitable if it has other channels or may have an EXIF orientation, which Caffe would not apply.
        """
        form = self.options.encoded or ""
        file_bytes = self.source.file(index) if self.options.resize is None else None
        usable = (
            file_bytes is not None
            and file_bytes.startswith(_MAGIC_BYTES[form])
            and not images.may_be_rotated(file_bytes)
        )
        if file_bytes is not None and usable and images.shape_of_file(file_bytes) == (image.shape[2], *image.shape[:2]):
            return file_bytes
        return images.encode(image, form)


def _sample_order(count: int, options: StorageOptions) -> Array:
    """Return, for each position in the data set, the index of the sample in the source."""
    seed = options.shuffle_seed
    order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
    low, high = options.part or (0, 1)
    order = order[round(low * count) : round(high * count)]
    if not len(order):
        raise DataError(f"data make: part {options.part} of {count} samples is none")
    return order


def _converted(image: Array, order: str, options: StorageOptions) -> Array:
    """Return height x width x channels with the requested channels and size."""
    if options.gray:
        image = images.to_gray(image, order)
    elif options.bgr and order == "rgb" and image.shape[2] == 3:
        image = image[:, :, ::-1]
    return images.resize(image, options.resize) if options.resize else image
