"""What is done to an image before the net sees it: carried along by every output, as JSON."""

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
ORDERS = ("BGR", "RGB", "GRAY")
DECODING = ("ImageData", "AnnotatedData", "VideoData", "WindowData")
"""Data layers that decode pictures themselves, through OpenCV: blue, green, red. A Data layer's source may be any."""
KEY = "preprocessing"
"""The key that outputs keep it under."""


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """`(pixel - mean) * scale`, pixels from 0 to 255 in this channel order, as Caffe's data layers do.

    `mean` is one number for each channel, or one for all; `mean_image` C×H×W, or None, takes its place. Source:
    src/caffe/data_transformer.cpp DataTransformer::Transform.
    """

    mean: tuple[float, ...] = ()
    scale: float = 1.0
    channel_order: str = ""
    mean_image: Array | None = None

    def __post_init__(self) -> None:
        if self.channel_order not in ("", *ORDERS):
            raise PrototxtGenError(f"channel order: one of {', '.join(ORDERS)}, not {self.channel_order!r}")
        if self.mean and self.mean_image is not None:
            raise PrototxtGenError("preprocessing: give mean values or a mean image, not both")

    def __bool__(self) -> bool:
        return bool(self.mean or self.scale != 1 or self.channel_order or self.mean_image is not None)

    def apply(self, pixels: Array) -> Array:
        """Return the float32 blob for N×C×H×W pixels that are in `channel_order` already."""
        made = pixels.astype("float32")
        if self.mean:
            self.check_channels(made.shape[1])
            made = made - np.asarray(self.mean, "float32").reshape(1, -1, 1, 1)
        if self.mean_image is not None:
            made = made - _central(self.mean_image, made.shape[2:])
        return np.asarray(made * np.float32(self.scale))

    def fits(self, channels: int) -> bool:
        """Whether the mean values are those of a blob of so many channels: a net's other inputs have others."""
        return len(self.mean) in (0, 1, channels)

    def check_channels(self, channels: int) -> None:
        """Raise an error where the mean does not fit so many channels."""
        if not self.fits(channels):
            raise PrototxtGenError(f"preprocessing: {len(self.mean)} mean values for {channels} channels")

    def metadata(self) -> dict[str, str]:
        """Return what outputs carry: nothing where nothing is known."""
        return {KEY: json.dumps(self.as_data())} if self else {}

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data; a mean image as its shape and its float32 numbers in base64."""
        found: dict[str, Any] = {"formula": "(pixel - mean) * scale", "pixels": "0 to 255", "scale": self.scale}
        if self.channel_order:
            found["channel_order"] = self.channel_order
        if self.mean:
            found["mean"] = list(self.mean)
        if self.mean_image is not None:
            numbers = np.ascontiguousarray(self.mean_image, "<f4").tobytes()
            found["mean_image"] = {
                "shape": list(self.mean_image.shape),
                "float32_base64": base64.b64encode(numbers).decode(),
            }
        return found


def _central(mean: Array, size: tuple[int, ...]) -> Array:
    """Return the middle of a mean image, where Caffe crops in the TEST phase."""
    top, left = ((whole - part) // 2 for whole, part in zip(mean.shape[1:], size, strict=True))
    if min(top, left) < 0:
        raise PrototxtGenError(f"preprocessing: the mean image is {mean.shape[1:]}, smaller than the input {size}")
    return mean[None, :, top : top + size[0], left : left + size[1]]


def read_mean(path: str | PathLike[str]) -> Array:
    """Return a mean image C×H×W from a .binaryproto or .npy. Raises WeightsError."""
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


def told_by(net: Net) -> Preprocessing:
    """Return what the net's own data layer does in this phase; nothing where it has none."""
    for layer in net.layers:
        layer_type = layers.find_layer_type(layer.type)
        if layer_type is not None and layer_type.data and layer.type != "Input":
            return _of_layer(net, layer)
    return Preprocessing()


def _of_layer(net: Net, layer: Layer) -> Preprocessing:
    p = layer.get(TransformationParameter)
    file = Path(net.source).parent / p.mean_file if p.mean_file else None
    image = read_mean(file) if file is not None and file.is_file() else None
    order = "BGR" if layer.type in DECODING and not p.force_gray else ""
    return Preprocessing(p.mean_value, p.scale, order, image)


def changed(found: Preprocessing, given: Mapping[str, Any]) -> Preprocessing:
    """Return what was found, with what an option gives in its place; a mean of one kind displaces the other."""
    if given.get("mean"):
        found = replace(found, mean_image=None)
    if given.get("mean_image") is not None:
        found = replace(found, mean=())
    return replace(found, **{name: value for name, value in given.items() if value is not None})
