"""Preprocessing of images for a net: resizing, subtraction of the mean, scaling, and one or ten crops.

One crop is the centre crop, as in every Caffe data layer in the TEST phase. Ten crops are the centre and the four
corners, each also mirrored, as in the 10-crop evaluation of papers. Source: src/caffe/data_transformer.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from converters.common.preprocessing import Preprocessing
from prototxt_gen.data import images
from prototxt_gen.data.augmentation import Augment, augment, sample_rng
from prototxt_gen.data.data_errors import DataError

Array = npt.NDArray[Any]
Size = tuple[int, int]
"""Height and width."""
CROPS = (1, 10)


class ImagePreprocessor(Protocol):
    """Turns an image into one or more inputs of the net (views), in the same way for every backend."""

    @property
    def crops(self) -> int:
        """Number of views of an image."""
        ...

    def views(self, image: Array) -> Array:
        """Return the views crops×C×H×W, float32, of an image C×H×W of values 0 to 255; the first is the centre crop."""
        ...

    def centre_image(self, image: Array) -> Array:
        """Return the centre crop H×W×C as an image, uint8, BGR, without mean and scale."""
        ...

    def description(self) -> str:
        """Return a description of the preprocessing for the user, as a phrase."""
        ...


def window_positions(image: Size, window: Size, crops: int) -> list[tuple[int, int]]:
    """Return (top, left) of each window in an image: the centre, and for ten crops then the four corners."""
    down, right = image[0] - window[0], image[1] - window[1]
    if min(down, right) < 0:
        raise DataError(f"a crop of {_size_text(window)} is larger than the image, {_size_text(image)}: use --resize")
    corners = [(0, 0), (0, right), (down, 0), (down, right)]
    return [(down // 2, right // 2), *(corners if crops > 1 else [])]


def _crop_windows(whole: Array, window: Size, crops: int) -> Array:
    """Return the windows of an image C×H×W as a batch, the mirrored ones last."""
    at = window_positions((whole.shape[1], whole.shape[2]), window, crops)
    return _with_mirrors(
        np.stack([whole[:, top : top + window[0], left : left + window[1]] for top, left in at]), crops
    )


def _with_mirrors(views: Array, crops: int) -> Array:
    return np.ascontiguousarray(np.concatenate([views, views[..., ::-1]]) if crops > 1 else views)


@dataclass(frozen=True)
class CaffePreprocessor:
    """The preprocessing of Caffe's data layers: `(pixel - mean) * scale` for the whole image, then the crop.

    Before that, the image is resized to `shorter` (length of the shorter side) or `exact` (height and width), if set,
    and `swap` reverses the order of three channels.
    """

    size: Size
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    shorter: int = 0
    exact: Size | None = None
    swap: bool = False
    crops: int = 1

    def views(self, image: Array) -> Array:
        return _crop_windows(self.preprocessing.apply(self._resized(image)[None])[0], self.size, self.crops)

    def centre_image(self, image: Array) -> Array:
        return _as_image(_crop_windows(self._resized(image), self.size, 1)[0], self.swap)

    def _resized(self, image: Array) -> Array:
        ordered = image[::-1] if self.swap else image
        size = self.exact or _size_with_shorter_side(image.shape[1:], self.shorter)
        return ordered if size == image.shape[1:] else images.to_chw(images.resize(images.to_hwc(ordered), size))

    def description(self) -> str:
        before = f"shorter side {self.shorter}" if self.shorter else ""
        before = f"resized to {_size_text(self.exact)}" if self.exact else before
        order = self.preprocessing.channel_order or "as stored"
        parts = [before, _crops_text(self.crops, self.size), f"channels {order}", _formula(self.preprocessing)]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class AugmentPreprocessor:
    """The preprocessing of prototxt-gen's Python data layer in the TEST phase."""

    augment_options: Augment
    crops: int = 1

    def views(self, image: Array) -> Array:
        if self.crops == 1:
            return _augmented(image, self.augment_options)[None]
        if self.augment_options.resizes:
            return self._resized_views(image)
        pad = self.augment_options.pad
        whole = np.pad(
            _augmented(image, replace(self.augment_options, crop=0, pad=0)), ((0, 0), (pad, pad), (pad, pad))
        )
        side = self.augment_options.crop
        return _crop_windows(whole, (side, side) if side else (whole.shape[1], whole.shape[2]), self.crops)

    def _resized_views(self, image: Array) -> Array:
        """Return the views of resized squares, which equal crops of the resized image."""
        height, width = image.shape[1:]
        side = max(1, min(height, width, round(self.augment_options.crop * min(height, width) / self._shorter)))
        squares = _crop_windows(image, (side, side), self.crops)[: self.crops // 2]
        whole = replace(self.augment_options, test_shorter=self.augment_options.crop)
        return _with_mirrors(np.stack([_augmented(square, whole) for square in squares]), self.crops)

    @property
    def _shorter(self) -> int:
        return self.augment_options.test_shorter or self.augment_options.crop

    def centre_image(self, image: Array) -> Array:
        plain = replace(self.augment_options, mean=(), scale=(1.0,))
        return _as_image(_augmented(image, plain), self.augment_options.order == "rgb")

    def description(self) -> str:
        before = f"shorter side {self._shorter}, " if self.augment_options.resizes else ""
        side = self.augment_options.crop
        cut = _crops_text(self.crops, (side, side)) if side else "the whole image"
        mean, scale = (
            ", ".join(f"{one:g}" for one in some) for some in (self.augment_options.mean, self.augment_options.scale)
        )
        return f"{before}{cut}, (pixel - {mean or 0}) * {scale}"


def _augmented(image: Array, augment_options: Augment) -> Array:
    return augment(image, augment_options, "TEST", sample_rng(0, 0, 0))


def _size_with_shorter_side(size: tuple[int, ...], length: int) -> Size:
    height, width = size
    if not length:
        return height, width
    factor = length / min(height, width)
    return max(length, round(height * factor)), max(length, round(width * factor))


def _as_image(image: Array, rgb: bool) -> Array:
    """Return an image C×H×W as H×W×C, uint8, BGR."""
    picture = images.to_hwc(np.clip(np.rint(image.astype(np.float32)), 0, 255).astype(np.uint8))
    return np.ascontiguousarray(picture[..., ::-1]) if rgb and picture.shape[2] == 3 else picture


def _size_text(size: tuple[int, ...] | None) -> str:
    return "x".join(map(str, size or ()))


def _crops_text(crops: int, size: Size) -> str:
    return f"{crops} crop{'s' if crops > 1 else ''} of {_size_text(size)}"


def _formula(preprocessing: Preprocessing) -> str:
    mean = (
        "mean image"
        if preprocessing.mean_image is not None
        else ", ".join(f"{one:g}" for one in preprocessing.mean) or "0"
    )
    return f"(pixel - {mean}) * {preprocessing.scale:g}"
