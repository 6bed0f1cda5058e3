"""Batches of Caffe's Data, ImageData and HDF5Data layers in NumPy, each a pure function of (seed, batch index).

Caffe itself stores neither its position in the data nor its random state. Here batch n of a run is always the same,
no matter which process computes it, when, and how often. Records come in Caffe's order: Data by database cursor,
ImageData by line, HDF5Data by row, over and over. Where a layer shuffles, every epoch is a permutation drawn from
(seed, epoch). Crops and mirrors are drawn from (seed, epoch, index in the epoch), so they do not depend on batch_size.

`data.batch_loader` does the same for our own Python layer `AugmentedData`; `batch_prefetch` and
`data.worker_processes` compute such batches ahead, in threads or in processes.

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

from prototxt_gen.analysis.net_analysis import data_layer_refusal
from prototxt_gen.common.errors import PrototxtGenError, UnsupportedError
from prototxt_gen.data.augmentation import sample_rng
from prototxt_gen.data.batch_loader import sample_index
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.data_set_reader import Hdf5Dataset, LmdbDataset, open_dataset
from prototxt_gen.data.transform import Transform, transform
from prototxt_gen.ir import Layer
from prototxt_gen.layers.data.data import DataParameter
from prototxt_gen.layers.data.hdf5_data import HDF5DataParameter
from prototxt_gen.layers.data.image_data import ImageDataParameter
from prototxt_gen.net.phase_rules import phase_of_layer
from prototxt_gen.schema.caffe_proto import TransformationParameter

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Locate = Callable[[str], Path]
"""Returns the path of a file that a net names, such as the solver's method `locate`."""


class DataLayerBatches:
    """All batches of one data layer in one phase.

    Thread-safe: several threads may call `make` at the same time.
    """

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
        """Return the tops of batch number `batch` as float32 arrays, counted from 0 at the start of training."""
        with _errors_naming(self.layer):
            return self._make(batch)

    def _make(self, batch: int) -> tuple[Array, ...]:
        raise NotImplementedError

    def shapes(self) -> tuple[Shape, ...]:
        """Return the shapes of the tops in the first batch."""
        return tuple(top.shape for top in self.make(0))

    def _sample_index(self, batch: int, position: int) -> int:
        number = self.offset + batch * self.size + position
        return sample_index(number, len(self), self.seed, self.shuffled)


class ImageBatches(DataLayerBatches):
    """Batches of Data and ImageData: transformed images (N×C×H×W) and labels (N)."""

    def __init__(self, layer: Layer, phase: str, seed: int, locate: Locate) -> None:
        super().__init__(layer, phase, seed)
        self.params = transform_of_layer(layer, locate)
        self.dataset = self._open(locate)
        if not len(self):
            raise layer.error(f"{self.dataset.path} holds no samples")

    def _open(self, locate: Locate) -> Any:
        if self.layer.type == "Data":
            return self._open_data(locate)
        return self._open_list(locate)

    def _open_data(self, locate: Locate) -> LmdbDataset:
        params = self.layer.get(DataParameter)
        self.size = params.batch_size
        color = True if params.force_encoded_color else self.params.color
        dataset = open_dataset(locate(params.source), color=color)
        if not isinstance(dataset, LmdbDataset):
            raise DataError(f"{params.source} is not an LMDB; layers of type Data can only read LMDB here")
        return dataset

    def _open_list(self, locate: Locate) -> Any:
        params = self.layer.get(ImageDataParameter)
        self.size, self.shuffled = params.batch_size, params.shuffle
        size = (params.new_height, params.new_width) if params.new_height else None
        path = locate(params.source)
        dataset = open_dataset(path, "list", root=params.root_folder, size=size, color=params.is_color)
        self.offset = self.seed % params.rand_skip if params.rand_skip else 0
        return dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def _make(self, batch: int) -> tuple[Array, ...]:
        samples = [self._sample(batch, position) for position in range(self.size)]
        images = self._stack(batch, [image for image, _ in samples])
        return (images, np.asarray([label for _, label in samples], np.float32))[: len(self.layer.tops)]

    def _sample(self, batch: int, position: int) -> tuple[Array, int]:
        image, label = self.dataset[self._sample_index(batch, position)]
        rng = sample_rng(self.seed, *divmod(batch * self.size + position, len(self)))
        return transform(image, self.params, self.phase, rng), label

    def _stack(self, batch: int, images: Sequence[Array]) -> Array:
        for position, image in enumerate(images):
            if image.shape != images[0].shape:
                index = self._sample_index(batch, position)
                raise DataError(f"{self.dataset.path}: sample {index} is {image.shape}, the first of its batch "
                                f"{images[0].shape}; set crop_size or resize them")  # fmt: skip
        return np.stack(images)


class HDF5Batches(DataLayerBatches):
    """Batches of HDF5Data: for each top, rows of the HDF5 data set with the top's name."""

    def __init__(self, layer: Layer, phase: str, seed: int, locate: Locate) -> None:
        super().__init__(layer, phase, seed)
        params = layer.get(HDF5DataParameter)
        self.size, self.shuffled = params.batch_size, params.shuffle
        dataset = open_dataset(locate(params.source), "hdf5-list", tops=[top.blob for top in layer.tops])
        assert isinstance(dataset, Hdf5Dataset)
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def _make(self, batch: int) -> tuple[Array, ...]:
        rows = [self.dataset.row(self._sample_index(batch, position)) for position in range(self.size)]
        return tuple(np.stack(column) for column in zip(*rows, strict=True))


BATCHES_BY_TYPE: dict[str, type[ImageBatches] | type[HDF5Batches]] = {
    "Data": ImageBatches,
    "ImageData": ImageBatches,
    "HDF5Data": HDF5Batches,
}


def batches_of(layer: Layer, phase: str, seed: int, locate: Locate = Path) -> DataLayerBatches:
    """Return the batches of a Data, ImageData or HDF5Data layer in a net of a phase, which the layer's own overrules.

    Source of the phase: src/caffe/net.cpp Net::Init.
    Raises PrototxtGenError, naming the layer, if the data set cannot be read or Caffe refuses the layer.
    """
    refusal = data_layer_refusal(layer)
    if refusal is not None:
        raise refusal
    with _errors_naming(layer):
        return BATCHES_BY_TYPE[layer.type](layer, phase_of_layer(layer, phase), seed, locate)


@contextmanager
def _errors_naming(layer: Layer) -> Iterator[None]:
    """Prefix errors raised in the block with the layer's name and type."""
    try:
        yield
    except UnsupportedError:
        raise
    except PrototxtGenError as error:
        if str(error).startswith("layer "):
            raise
        raise PrototxtGenError(f"layer {layer.name!r} ({layer.type}): {error}") from error


def transform_of_layer(layer: Layer, locate: Locate) -> Transform:
    """Return the layer's transform_param as a Transform.

    Raises UnsupportedError for fields that only SSD's DataTransformer has.
    """
    params = layer.get(TransformationParameter)
    supported = Transform.__dataclass_fields__
    unsupported = [name for name, value in params.set_fields() if name not in supported and value]
    if unsupported or params.extras:
        names = ", ".join([*unsupported, *(extra.name for extra in params.extras)])
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): transform_param: not supported here: {names}")
    values = {name: getattr(params, name) for name in supported}
    if params.mean_file:
        values["mean_file"] = str(locate(params.mean_file))
    with _errors_naming(layer):
        return Transform(**values)
