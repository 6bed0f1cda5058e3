"""Preprocessing of images before the net: mean, scale and channel order, stored in every converted file as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen import layers
from prototxt_gen.common.errors import PrototxtGenError, WeightsError
from prototxt_gen.data.batch_loader import LoaderSpec
from prototxt_gen.ir import Layer, Net
from prototxt_gen.layers.data.image_data import ImageDataParameter
from prototxt_gen.layers.utility.python import PythonParameter
from prototxt_gen.net.preprocessing_comment import preprocessing_comment, read_preprocessing_comment
from prototxt_gen.schema.caffe_proto import TransformationParameter
from prototxt_gen.train.data_shapes import is_augmented_data

Array = np.ndarray[Any, Any]
CHANNEL_ORDERS = ("BGR", "RGB", "GRAY")
IMAGE_DECODING_TYPES = ("ImageData", "AnnotatedData", "VideoData", "WindowData")
"""Data layers that decode images with OpenCV, and so give BGR. The source of a Data layer may have any order."""
METADATA_KEY = "preprocessing"
"""Key of the preprocessing in the metadata of converted files."""


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """`(pixel - mean) * scale` for pixels from 0 to 255, as Caffe's data layers compute it.

    `mean`: one number per channel, or one for all channels; empty for no mean. `mean_image`: a C×H×W array that is
    subtracted instead of `mean`. `channel_order`: "BGR", "RGB", "GRAY", or "" if it is unknown. `resize`: height and
    width to which images are resized before the crop, or (). `is_known`: whether mean and scale are known although
    they are 0 and 1. `mean_file`: the path that the mean image was read from, "" if there is none. False as a truth
    value if nothing is known. Raises PrototxtGenError if the order is invalid, or if both means are given.
    Source: src/caffe/data_transformer.cpp DataTransformer::Transform.
    """

    mean: tuple[float, ...] = ()
    scale: float = 1.0
    channel_order: str = ""
    mean_image: Array | None = None
    resize: tuple[int, ...] = ()
    is_known: bool = False
    mean_file: str = ""

    def __post_init__(self) -> None:
        if self.channel_order not in ("", *CHANNEL_ORDERS):
            raise PrototxtGenError(f"channel order: one of {', '.join(CHANNEL_ORDERS)}, not {self.channel_order!r}")
        if self.mean and self.mean_image is not None:
            raise PrototxtGenError("preprocessing: give mean values or a mean image, not both")

    def __bool__(self) -> bool:
        has_values = self.mean or self.scale != 1 or self.channel_order or self.mean_image is not None
        return bool(has_values or self.is_known)

    def apply(self, pixels: Array) -> Array:
        """Return the float32 blob for N×C×H×W pixels, which must be in `channel_order` already.

        Raises PrototxtGenError if the mean does not fit the number of channels, or the mean image is too small.
        """
        blob = pixels.astype("float32")
        if self.mean:
            self.check_channels(blob.shape[1])
            blob = blob - np.asarray(self.mean, "float32").reshape(1, -1, 1, 1)
        if self.mean_image is not None:
            blob = blob - _center_crop(self.mean_image, blob.shape[2:])
        return np.asarray(blob * np.float32(self.scale))

    def fits_channels(self, channels: int) -> bool:
        """Whether the number of mean values suits a blob with this number of channels."""
        return len(self.mean) in (0, 1, channels)

    def check_channels(self, channels: int) -> None:
        """Raise PrototxtGenError if the number of mean values does not suit this number of channels."""
        if not self.fits_channels(channels):
            raise PrototxtGenError(f"preprocessing: {len(self.mean)} mean values for {channels} channels")

    def metadata(self) -> dict[str, str]:
        """Return the metadata entry for converted files; an empty dict if nothing is known."""
        return {METADATA_KEY: json.dumps(self.as_dict())} if self else {}

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON. A mean image becomes its shape and its float32 numbers in base64."""
        entry: dict[str, Any] = {"formula": "(pixel - mean) * scale", "pixels": "0 to 255", "scale": self.scale}
        if self.channel_order:
            entry["channel_order"] = self.channel_order
        if self.mean:
            entry["mean"] = list(self.mean)
        if self.mean_image is not None:
            numbers = np.ascontiguousarray(self.mean_image, "<f4").tobytes()
            entry["mean_image"] = {
                "shape": list(self.mean_image.shape),
                "float32_base64": base64.b64encode(numbers).decode(),
            }
        if self.resize:
            entry["resize"] = list(self.resize)
        return entry

    def prototxt_comment(self) -> str:
        """Return the comment for the head of a deploy net, which names the file of the mean image; "" if unknown."""
        entry = replace(self, mean_image=None).as_dict() if self else {}
        if self.mean_image is not None and self.mean_file:
            entry["mean_file"] = str(Path(self.mean_file).absolute())
        return preprocessing_comment(entry) if self.mean_image is None or self.mean_file else ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing of a dict from `as_dict`, or from a prototxt's comment; an empty one for {}."""
        if not values:
            return cls()
        image, file, mean_image = values.get("mean_image"), str(values.get("mean_file", "")), None
        if image:
            mean_image = np.frombuffer(base64.b64decode(image["float32_base64"]), "<f4").reshape(image["shape"])
        elif file:
            mean_image = read_mean(file)
        mean, order, resize = values.get("mean", ()), values.get("channel_order", ""), values.get("resize", ())
        return cls(tuple(mean), values.get("scale", 1.0), order, mean_image, tuple(resize), True, file)


def _center_crop(mean: Array, size: tuple[int, ...]) -> Array:
    """Return the center of a mean image, as Caffe crops it in the TEST phase; 1×C×H×W for `size` H×W."""
    top, left = ((whole - part) // 2 for whole, part in zip(mean.shape[1:], size, strict=True))
    if min(top, left) < 0:
        raise PrototxtGenError(f"preprocessing: the mean image is {mean.shape[1:]}, smaller than the input {size}")
    return mean[None, :, top : top + size[0], left : left + size[1]]


def read_mean(path: str | PathLike[str]) -> Array:
    """Return a mean image, C×H×W, or means per channel, C×1×1, from a .binaryproto or .npy file.

    Raises WeightsError if the file cannot be read, or its array has another number of axes.
    """
    from prototxt_gen import caffemodel

    if not str(path).endswith(".npy"):
        array = caffemodel.read_binaryproto(path)
    else:
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise WeightsError(f"{path}: not a NumPy array: {error}") from None
    shaped = array[0] if array.ndim == 4 and len(array) == 1 else array
    if shaped.ndim not in (1, 3):
        raise WeightsError(f"{path}: a mean image is C×H×W, or one number per channel, not {array.shape}")
    return np.asarray(shaped.reshape(-1, 1, 1) if shaped.ndim == 1 else shaped, "float32")


def preprocessing_of_net(net: Net) -> Preprocessing:
    """Return the preprocessing of the images of a net of one phase; an empty one if nothing is known.

    It is that of the net's first data layer or, without one, that in the comment of a deploy net that this toolkit
    wrote (see `prototxt_gen.net.preprocessing_comment`).
    """
    for layer in net.layers:
        layer_type = layers.find_layer_type(layer.type)
        if layer_type is not None and layer_type.data and layer.type != "Input":
            return _preprocessing_of_layer(net, layer)
        if is_augmented_data(layer):
            return _preprocessing_of_augmented(layer)
    return Preprocessing.from_dict(read_preprocessing_comment(net.source)) if net.source else Preprocessing()


def _preprocessing_of_layer(net: Net, layer: Layer) -> Preprocessing:
    p, layer_type = layer.get(TransformationParameter), layers.layer_type_of(layer)
    file = _mean_file(net, p.mean_file) if p.mean_file else None
    image = read_mean(file) if file is not None and file.is_file() else None
    order = "BGR" if layer.type in IMAGE_DECODING_TYPES and not p.force_gray else ""
    has_transform = TransformationParameter in layer_type.params and layer.type != "MemoryData"
    is_known = (has_transform or layer.params.has("transform_param")) and (file is None or image is not None)
    size = layer.get(ImageDataParameter)
    resize = (size.new_height, size.new_width) if layer.type == "ImageData" and size.new_height else ()
    name = str(file) if image is not None else ""
    return Preprocessing(p.mean_value, p.scale, order, image, resize, is_known, name)


def _mean_file(net: Net, name: str) -> Path:
    """Return the path of a mean file: from the working folder, as in Caffe, or else from the net's folder."""
    beside = Path(net.source).parent / name
    return beside if not Path(name).exists() and beside.exists() else Path(name)


def _preprocessing_of_augmented(layer: Layer) -> Preprocessing:
    """Return the preprocessing of our Python data layer; an empty one if its scales differ between channels."""
    try:
        spec = LoaderSpec.from_json(layer.get(PythonParameter).param_str)
    except PrototxtGenError:
        return Preprocessing()
    if len(set(spec.augment.scale)) > 1:
        return Preprocessing()
    order = "RGB" if spec.augment.order == "rgb" else ""  # bgr is the default, also for data of another order
    return Preprocessing(spec.augment.mean, spec.augment.scale[0], order, is_known=True)


def with_overrides(preprocessing: Preprocessing, overrides: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing with some fields replaced; None leaves a field unchanged.

    A mean given as values removes a mean image, and a mean image removes mean values.
    """
    if overrides.get("mean"):
        preprocessing = replace(preprocessing, mean_image=None)
    if overrides.get("mean_image") is not None:
        preprocessing = replace(preprocessing, mean=())
    return replace(preprocessing, **{name: value for name, value in overrides.items() if value is not None})
