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
from prototxt_gen.ir import Layer, Net
from prototxt_gen.schema.caffe_proto import TransformationParameter

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
    subtracted instead of `mean`. `channel_order`: "BGR", "RGB", "GRAY", or "" if it is unknown. False as a truth value
    if nothing is known. Raises PrototxtGenError if the order is invalid, or if both means are given.
    Source: src/caffe/data_transformer.cpp DataTransformer::Transform.
    """

    mean: tuple[float, ...] = ()
    scale: float = 1.0
    channel_order: str = ""
    mean_image: Array | None = None

    def __post_init__(self) -> None:
        if self.channel_order not in ("", *CHANNEL_ORDERS):
            raise PrototxtGenError(f"channel order: one of {', '.join(CHANNEL_ORDERS)}, not {self.channel_order!r}")
        if self.mean and self.mean_image is not None:
            raise PrototxtGenError("preprocessing: give mean values or a mean image, not both")

    def __bool__(self) -> bool:
        return bool(self.mean or self.scale != 1 or self.channel_order or self.mean_image is not None)

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
        return entry


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
    """Return the preprocessing of the first data layer in a net of one phase; an empty one if it has no data layer."""
    for layer in net.layers:
        layer_type = layers.find_layer_type(layer.type)
        if layer_type is not None and layer_type.data and layer.type != "Input":
            return _preprocessing_of_layer(net, layer)
    return Preprocessing()


def _preprocessing_of_layer(net: Net, layer: Layer) -> Preprocessing:
    p = layer.get(TransformationParameter)
    file = Path(net.source).parent / p.mean_file if p.mean_file else None
    image = read_mean(file) if file is not None and file.is_file() else None
    order = "BGR" if layer.type in IMAGE_DECODING_TYPES and not p.force_gray else ""
    return Preprocessing(p.mean_value, p.scale, order, image)


def with_overrides(preprocessing: Preprocessing, overrides: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing with some fields replaced; None leaves a field unchanged.

    A mean given as values removes a mean image, and a mean image removes mean values.
    """
    if overrides.get("mean"):
        preprocessing = replace(preprocessing, mean_image=None)
    if overrides.get("mean_image") is not None:
        preprocessing = replace(preprocessing, mean=())
    return replace(preprocessing, **{name: value for name, value in overrides.items() if value is not None})
