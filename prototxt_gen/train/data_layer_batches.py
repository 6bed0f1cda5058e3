"""What Caffe's data layers give, as a function of (seed, batch index): nothing is remembered between batches.

Caffe forgets where in its data it was, and its random state; here batch n of a run is the same whoever makes it, when,
and how often. Records come in Caffe's order: Data by the cursor of the data base, ImageData by line, HDF5Data by row,
over and over; where a layer shuffles, every epoch is a permutation drawn from (seed, epoch). Crops and mirrors are
drawn from (seed, epoch, place in the epoch), so that the size of the batches does not matter.

Source: src/caffe/layers/data_layer.cpp, image_data_layer.cpp, hdf5_data_layer.cpp, data_transformer.cpp.
Differs: the random numbers themselves; HDF5Data shuffles all rows, Caffe the files and the rows of each.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.common.errors import PrototxtGenError, UnsupportedError
from prototxt_gen.data.augmentation import rng_for
from prototxt_gen.data.batch_loader import sample_at
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.data_set_reader import Hdf5Dataset, LmdbDataset, open_dataset
from prototxt_gen.data.transform import Transform, transform
from prototxt_gen.ir import Layer
from prototxt_gen.layers.data.data import DataParameter
from prototxt_gen.layers.data.hdf5_data import HDF5DataParameter
from prototxt_gen.layers.data.image_data import ImageDataParameter
from prototxt_gen.schema.caffe_proto import TransformationParameter

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Locate = Callable[[str], Path]
"""Finds a file that a net names: the solver's `locate`."""


class Batches:
    """All batches of one data layer in one phase. Thread-safe: `make` may be called from several threads at once."""

    def __init__(self, layer: Layer, phase: str, seed: int) -> None:
        self.layer, self.phase = layer, phase
        self.seed = zlib.crc32(f"{seed} {layer.name}".encode())
        self.size = 0
        self.shuffled = False
        self.offset = 0

    def __len__(self) -> int:
        """The number of samples in the data set."""
        raise NotImplementedError

    def make(self, batch: int) -> tuple[Array, ...]:
        """Return the tops' content, float32, in batch number `batch`, counted from 0 at the start of training."""
        with _naming(self.layer):
            return self._make(batch)

    def _make(self, batch: int) -> tuple[Array, ...]:
        raise NotImplementedError

    def shapes(self) -> tuple[Shape, ...]:
        """Return the shapes of the tops in the first batch."""
        return tuple(top.shape for top in self.make(0))

    def _index(self, batch: int, place: int) -> int:
        number = self.offset + batch * self.size + place
        return sample_at(number, len(self), self.seed, self.shuffled)


class Pictures(Batches):
    """Data and ImageData: images, transformed, and labels."""

    def __init__(self, layer: Layer, phase: str, seed: int, locate: Locate) -> None:
        super().__init__(layer, phase, seed)
        self.params = transform_of(layer, locate)
        self.dataset = self._open(locate)
        if not len(self):
            raise layer.error(f"{self.dataset.path} holds no samples")

    def _open(self, locate: Locate) -> Any:
        if self.layer.type == "Data":
            return self._open_data(locate)
        return self._open_list(locate)

    def _open_data(self, locate: Locate) -> LmdbDataset:
        own = self.layer.get(DataParameter)
        self.size = own.batch_size
        color = True if own.force_encoded_color else self.params.color
        found = open_dataset(locate(own.source), color=color)
        if not isinstance(found, LmdbDataset):
            raise DataError(f"{own.source} is no LMDB; Data reads nothing else here")
        return found

    def _open_list(self, locate: Locate) -> Any:
        own = self.layer.get(ImageDataParameter)
        self.size, self.shuffled = own.batch_size, own.shuffle
        size = (own.new_height, own.new_width) if own.new_height else None
        found = open_dataset(locate(own.source), "list", root=own.root_folder, size=size, color=own.is_color)
        self.offset = self.seed % own.rand_skip if own.rand_skip else 0
        return found

    def __len__(self) -> int:
        return len(self.dataset)

    def _make(self, batch: int) -> tuple[Array, ...]:
        found = [self._sample(batch, place) for place in range(self.size)]
        images = self._stack(batch, [image for image, _ in found])
        return (images, np.asarray([label for _, label in found], np.float32))[: len(self.layer.tops)]

    def _sample(self, batch: int, place: int) -> tuple[Array, int]:
        image, label = self.dataset[self._index(batch, place)]
        rng = rng_for(self.seed, *divmod(batch * self.size + place, len(self)))
        return transform(image, self.params, self.phase, rng), label

    def _stack(self, batch: int, images: Sequence[Array]) -> Array:
        for place, image in enumerate(images):
            if image.shape != images[0].shape:
                index = self._index(batch, place)
                raise DataError(f"{self.dataset.path}: sample {index} is {image.shape}, the first of its batch "
                                f"{images[0].shape}; set crop_size or resize them")  # fmt: skip
        return np.stack(images)


class Rows(Batches):
    """HDF5Data: for each top, rows of the data set of its name."""

    def __init__(self, layer: Layer, phase: str, seed: int, locate: Locate) -> None:
        super().__init__(layer, phase, seed)
        own = layer.get(HDF5DataParameter)
        self.size, self.shuffled = own.batch_size, own.shuffle
        found = open_dataset(locate(own.source), "hdf5-list", tops=[top.blob for top in layer.tops])
        assert isinstance(found, Hdf5Dataset)
        self.dataset = found

    def __len__(self) -> int:
        return len(self.dataset)

    def _make(self, batch: int) -> tuple[Array, ...]:
        rows = [self.dataset.row(self._index(batch, place)) for place in range(self.size)]
        return tuple(np.stack(column) for column in zip(*rows, strict=True))


MAKERS: dict[str, type[Pictures] | type[Rows]] = {"Data": Pictures, "ImageData": Pictures, "HDF5Data": Rows}


def batches_of(layer: Layer, phase: str, seed: int, locate: Locate = Path) -> Batches:
    """Return the batches of a Data, ImageData or HDF5Data layer; a fault is an error that names the layer."""
    with _naming(layer):
        made = MAKERS[layer.type](layer, phase, seed, locate)
    if made.size < 1:
        raise layer.error("its batch_size must be at least 1")
    return made


@contextmanager
def _naming(layer: Layer) -> Iterator[None]:
    try:
        yield
    except UnsupportedError:
        raise
    except PrototxtGenError as error:
        if str(error).startswith("layer "):
            raise
        raise PrototxtGenError(f"layer {layer.name!r} ({layer.type}): {error}") from error


def transform_of(layer: Layer, locate: Locate) -> Transform:
    """Return what transform_param says; UnsupportedError for what only SSD's transformer does."""
    own = layer.get(TransformationParameter)
    known = Transform.__dataclass_fields__
    beyond = [name for name, value in own.set_fields() if name not in known and value]
    if beyond or own.extras:
        names = ", ".join([*beyond, *(extra.name for extra in own.extras)])
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): transform_param: {names} cannot be done here")
    given = {name: getattr(own, name) for name in known}
    if own.mean_file:
        given["mean_file"] = str(locate(own.mean_file))
    with _naming(layer):
        return Transform(**given)
