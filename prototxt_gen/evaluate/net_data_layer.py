"""Source and preprocessing of the TEST data layer of a net, used to evaluate the net on its test data."""

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
class NetDataLayer:
    """Source and preprocessing of a data layer.

    `source` is the path of the data, "" if there is none; `open_options` are further arguments of `open_dataset`.
    `crop` is the side of the crop, 0 for the whole image; `resize` is (height, width) before the crop. For the Python
    layer of prototxt-gen, `augment` replaces crop, resize, mean and scale.
    """

    layer: Layer
    source: str = ""
    open_options: Mapping[str, Any] = field(default_factory=dict)
    crop: int = 0
    resize: tuple[int, int] | None = None
    augment: Augment | None = None
    mean_file: str = ""

    @property
    def top(self) -> str:
        """The name of the blob with the images."""
        return self.layer.tops[0].blob

    def shape(self, sample: Shape) -> Shape:
        """Return the shape 1×C×H×W of the blob for a sample C×H×W. Raises NetError if the crop is too large."""
        channels, height, width = sample
        if self.augment is not None:
            return (1, *self.augment.output_shape((channels, height, width)))
        height, width = self.resize or (height, width)
        if self.crop > min(height, width):
            raise self.layer.error(f"crop_size {self.crop} is larger than the image, {height}x{width}")
        return (1, channels, self.crop or height, self.crop or width)


def net_data_layer(net: Net) -> NetDataLayer | None:
    """Return the first data layer of a net of one phase that is supported, or None if there is none."""
    for layer in net.layers:
        construct = _CONSTRUCTORS.get(layer.type)
        if construct is not None and (layer.type != "Python" or is_augmented_data(layer)):
            return construct(net, layer)
    return None


def locate_file(net: Net, name: str) -> Path:
    """Return the path of a file that a net names, from the working folder (as in Caffe) or the net's folder."""
    beside = Path(net.source).parent / name
    return beside if not Path(name).exists() and beside.exists() else Path(name)


def _from_transform(net: Net, layer: Layer, **given: Any) -> NetDataLayer:
    how = transform_of_layer(layer, lambda name: locate_file(net, name))
    open_options = {"color": how.color, **given.pop("open_options", {})}
    return NetDataLayer(layer, open_options=open_options, crop=how.crop_size, mean_file=how.mean_file, **given)


def _from_data(net: Net, layer: Layer) -> NetDataLayer:
    params = layer.get(DataParameter)
    open_options = {"color": True} if params.force_encoded_color else {}
    return _from_transform(net, layer, source=str(locate_file(net, params.source)), open_options=open_options)


def _from_image_data(net: Net, layer: Layer) -> NetDataLayer:
    params = layer.get(ImageDataParameter)
    size = (params.new_height, params.new_width) if params.new_height else None
    open_options = {"kind": "list", "root": params.root_folder, "color": params.is_color}
    return _from_transform(
        net, layer, source=str(locate_file(net, params.source)), resize=size, open_options=open_options
    )


def _from_hdf5_data(net: Net, layer: Layer) -> NetDataLayer:
    params, tops = layer.get(HDF5DataParameter), [top.blob for top in layer.tops]
    return NetDataLayer(layer, str(locate_file(net, params.source)), {"kind": "hdf5-list", "tops": tops})


def _from_augmented(net: Net, layer: Layer) -> NetDataLayer:
    text = layer.get(PythonParameter).param_str
    try:
        spec = LoaderSpec.from_json(text)
    except DataError as error:
        raise layer.error(str(error)) from error
    open_options = {
        name: getattr(spec, name) for name in ("kind", "root", "split", "color") if name in json.loads(text)
    }
    return NetDataLayer(layer, str(locate_file(net, spec.source)), open_options, augment=spec.augment)


_CONSTRUCTORS = {
    "Data": _from_data,
    "ImageData": _from_image_data,
    "HDF5Data": _from_hdf5_data,
    "MemoryData": _from_transform,
    "Python": _from_augmented,
}
