"""From a sample of a source to a record ready to store: channels, size, order, picture file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.data import images
from prototxt_gen.data.data_errors import BrokenImageError, DataError
from prototxt_gen.data.data_set_writers import Record
from prototxt_gen.data.sources import Source

Array = npt.NDArray[Any]
Result = Record | str  # a record, or why there is none

_PROBES = 8
_STARTS = {"png": b"\x89PNG", "jpg": b"\xff\xd8"}


@dataclass(frozen=True)
class Options:
    """How the samples are stored; see `make`."""

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


class Preparer:
    """Makes the record for any place of the result. Called from several threads at once."""

    def __init__(self, source: Source, options: Options) -> None:
        self.source, self.options = source, options
        self.order = _order(len(source), options)

    def __len__(self) -> int:
        return len(self.order)

    def __call__(self, position: int) -> Result:
        """Return the record for one place, or what is wrong with its picture."""
        try:
            return self._record(position)
        except BrokenImageError as error:
            return str(error)

    def name(self, position: int) -> str:
        """Return what to call the sample at a place."""
        return self.source.key(int(self.order[position])) or f"sample {position}"

    def probes(self) -> list[Record]:
        """Return a few records spread over the set, at least one: their sizes stand for all."""
        spread = sorted(set(np.linspace(0, len(self) - 1, _PROBES).astype(int).tolist()))
        found = [result for result in map(self, spread) if isinstance(result, Record)]
        found = found or [result for result in map(self, range(len(self))) if isinstance(result, Record)][:1]
        if not found:
            raise DataError(f"none of the {len(self)} pictures can be decoded; the first: {self(0)}")
        return found

    def _record(self, position: int) -> Record:
        index = int(self.order[position])
        image = _converted(self.source.image(index), self.source.order, self.options)
        encoded = self._encoded(index, image) if self.options.encoded else None
        return Record(position, self.source.key(index), int(self.source.labels[index]), images.to_chw(image), encoded)

    def _encoded(self, index: int, image: Array) -> bytes:
        """Return the picture file: the very file where it already is what is wanted (ReadImageToDatum does the same).

        Not so if it has other channels, which Caffe would find on decoding, or may be turned, which it would not.
        """
        form = self.options.encoded or ""
        raw = self.source.file(index) if self.options.resize is None else None
        usable = raw is not None and raw.startswith(_STARTS[form]) and not images.has_orientation(raw)
        if raw is not None and usable and images.size_of(raw) == (image.shape[2], *image.shape[:2]):
            return raw
        return images.encode(image, form)


def _order(count: int, options: Options) -> Array:
    """Return which sample of the source goes to each place."""
    seed = options.shuffle_seed
    order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
    low, high = options.part or (0, 1)
    order = order[round(low * count) : round(high * count)]
    if not len(order):
        raise DataError(f"data make: part {options.part} of {count} samples is none")
    return order


def _converted(image: Array, order: str, options: Options) -> Array:
    """Return height x width x channels with the channels and the size asked for."""
    if options.gray:
        image = images.gray(image, order)
    elif options.bgr and order == "rgb" and image.shape[2] == 3:
        image = image[:, :, ::-1]
    return images.resize(image, options.resize) if options.resize else image
