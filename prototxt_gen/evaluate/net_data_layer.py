"""What a net's own data layer of the TEST phase reads, and what it does to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prototxt_gen.data.augmentation import Augment
from prototxt_gen.data.batch_loader import LoaderSpec
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.ir import Layer, Net, Shape
from prototxt_gen.layers.data.data import DataParameter
from prototxt_gen.layers.data.hdf5_data import HDF5DataParameter
from prototxt_gen.layers.data.image_data import ImageDataParameter
from prototxt_gen.layers.utility.python import PythonParameter
from prototxt_gen.train.data_layer_batches import transform_of_layer
from prototxt_gen.train.data_shapes import is_augmented_data


@dataclass(frozen=True)
class OwnData:
    """A TEST data layer. `opening` is what `open_dataset` takes beside the path; an empty `source`: none is named.

    `crop` is the side that is cut out, 0 for all of the picture; `resize` the size (height, width) before that.
    `augment` takes the place of both, and of mean and scale, where the layer is our Python layer.
    """

    layer: Layer
    source: str = ""
    opening: Mapping[str, Any] = field(default_factory=dict)
    crop: int = 0
    resize: tuple[int, int] | None = None
    augment: Augment | None = None
    mean_file: str = ""

    @property
    def top(self) -> str:
        """The blob of the images."""
        return self.layer.tops[0].blob

    def shape(self, sample: Shape) -> Shape:
        """Return 1×C×H×W, what the net gets of a sample of shape C×H×W."""
        channels, height, width = sample
        if self.augment is not None:
            return (1, *self.augment.output_shape((channels, height, width)))
        height, width = self.resize or (height, width)
        if self.crop > min(height, width):
            raise self.layer.error(f"crop_size {self.crop} is larger than the image, {height}x{width}")
        return (1, channels, self.crop or height, self.crop or width)


def own_data(net: Net) -> OwnData | None:
    """Return what the data layer of a net of one phase says; None where the net has inputs only."""
    for layer in net.layers:
        make = _READERS.get(layer.type)
        if make is not None and (layer.type != "Python" or is_augmented_data(layer)):
            return make(net, layer)
    return None


def locate(net: Net, name: str) -> Path:
    """Return a file that a net names: from the working folder, as Caffe does, or else beside the net."""
    beside = Path(net.source).parent / name
    return beside if not Path(name).exists() and beside.exists() else Path(name)


def _plain(net: Net, layer: Layer, **given: Any) -> OwnData:
    how = transform_of_layer(layer, lambda name: locate(net, name))
    opening = {"color": how.color, **given.pop("opening", {})}
    return OwnData(layer, opening=opening, crop=how.crop_size, mean_file=how.mean_file, **given)


def _data(net: Net, layer: Layer) -> OwnData:
    own = layer.get(DataParameter)
    opening = {"color": True} if own.force_encoded_color else {}
    return _plain(net, layer, source=str(locate(net, own.source)), opening=opening)


def _image_data(net: Net, layer: Layer) -> OwnData:
    own = layer.get(ImageDataParameter)
    size = (own.new_height, own.new_width) if own.new_height else None
    opening = {"kind": "list", "root": own.root_folder, "color": own.is_color}
    return _plain(net, layer, source=str(locate(net, own.source)), resize=size, opening=opening)


def _hdf5_data(net: Net, layer: Layer) -> OwnData:
    own, tops = layer.get(HDF5DataParameter), [top.blob for top in layer.tops]
    return OwnData(layer, str(locate(net, own.source)), {"kind": "hdf5-list", "tops": tops})


def _augmented(net: Net, layer: Layer) -> OwnData:
    text = layer.get(PythonParameter).param_str
    try:
        spec = LoaderSpec.from_json(text)
    except DataError as error:
        raise layer.error(str(error)) from error
    opening = {name: getattr(spec, name) for name in ("kind", "root", "split", "color") if name in json.loads(text)}
    return OwnData(layer, str(locate(net, spec.source)), opening, augment=spec.augment)


_READERS = {
    "Data": _data,
    "ImageData": _image_data,
    "HDF5Data": _hdf5_data,
    "MemoryData": _plain,
    "Python": _augmented,
}
