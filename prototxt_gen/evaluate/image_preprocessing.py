"""From a picture to what a net takes: resized, mean taken off, scaled, cut to the views that are looked at.

One crop is the middle, as every Caffe data layer cuts in the TEST phase. Ten crops are the four corners and the middle,
each also mirrored: the average of their scores is what papers call 10-crop. Source: src/caffe/data_transformer.cpp.
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


class Recipe(Protocol):
    """Makes views. Equal for every backend, so that they differ in nothing but the net."""

    @property
    def crops(self) -> int:
        """How many views there are of a picture."""
        ...

    def views(self, image: Array) -> Array:
        """Return crops×C×H×W, float32, of a picture C×H×W, pixels from 0 to 255; the first view is the middle."""
        ...

    def pixels(self, image: Array) -> Array:
        """Return the middle view H×W×C as a picture again, uint8, before mean and scale."""
        ...

    def words(self) -> str:
        """Return what is done, as one sentence for people."""
        ...


def places(image: Size, window: Size, crops: int) -> list[tuple[int, int]]:
    """Return (top, left) of each window in a picture: the middle, and for ten crops the corners after it."""
    down, right = image[0] - window[0], image[1] - window[1]
    if min(down, right) < 0:
        raise DataError(f"a crop of {_by(window)} is larger than the picture, {_by(image)}: resize it first (--resize)")
    corners = [(0, 0), (0, right), (down, 0), (down, right)]
    return [(down // 2, right // 2), *(corners if crops > 1 else [])]


def _cut(whole: Array, window: Size, crops: int) -> Array:
    """Return the windows of a picture C×H×W, stacked, mirrored ones behind the others."""
    at = places((whole.shape[1], whole.shape[2]), window, crops)
    return _with_mirrors(
        np.stack([whole[:, top : top + window[0], left : left + window[1]] for top, left in at]), crops
    )


def _with_mirrors(views: Array, crops: int) -> Array:
    return np.ascontiguousarray(np.concatenate([views, views[..., ::-1]]) if crops > 1 else views)


@dataclass(frozen=True)
class CaffeRecipe:
    """As Caffe's data layers do it: `(pixel - mean) * scale` over the whole picture, then the crop.

    `shorter` resizes the shorter side before, `exact` both sides; 0 and None leave the size. `swap` turns the order of
    three channels around.
    """

    size: Size
    numbers: Preprocessing = field(default_factory=Preprocessing)
    shorter: int = 0
    exact: Size | None = None
    swap: bool = False
    crops: int = 1

    def views(self, image: Array) -> Array:
        return _cut(self.numbers.apply(self._resized(image)[None])[0], self.size, self.crops)

    def pixels(self, image: Array) -> Array:
        return _as_picture(_cut(self._resized(image), self.size, 1)[0], self.swap)

    def _resized(self, image: Array) -> Array:
        ordered = image[::-1] if self.swap else image
        size = self.exact or _shorter_to(image.shape[1:], self.shorter)
        return ordered if size == image.shape[1:] else images.to_chw(images.resize(images.to_hwc(ordered), size))

    def words(self) -> str:
        before = f"shorter side {self.shorter}" if self.shorter else ""
        before = f"resized to {_by(self.exact)}" if self.exact else before
        order = self.numbers.channel_order or "as stored"
        parts = [before, _crops_text(self.crops, self.size), f"channels {order}", _formula(self.numbers)]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class AugmentRecipe:
    """As our Python layer does it in the TEST phase."""

    how: Augment
    crops: int = 1

    def views(self, image: Array) -> Array:
        if self.crops == 1:
            return _in_test(image, self.how)[None]
        if self.how.resizes:
            return self._resized_views(image)
        pad = self.how.pad
        whole = np.pad(_in_test(image, replace(self.how, crop=0, pad=0)), ((0, 0), (pad, pad), (pad, pad)))
        side = self.how.crop
        return _cut(whole, (side, side) if side else (whole.shape[1], whole.shape[2]), self.crops)

    def _resized_views(self, image: Array) -> Array:
        """Cut squares that are the crop once the shorter side has its length, and resize each."""
        height, width = image.shape[1:]
        side = max(1, min(height, width, round(self.how.crop * min(height, width) / self._shorter)))
        squares = _cut(image, (side, side), self.crops)[: self.crops // 2]
        whole = replace(self.how, test_shorter=self.how.crop)
        return _with_mirrors(np.stack([_in_test(square, whole) for square in squares]), self.crops)

    @property
    def _shorter(self) -> int:
        return self.how.test_shorter or self.how.crop

    def pixels(self, image: Array) -> Array:
        plain = replace(self.how, mean=(), scale=(1.0,))
        return _as_picture(_in_test(image, plain), self.how.order == "rgb")

    def words(self) -> str:
        before = f"shorter side {self._shorter}, " if self.how.resizes else ""
        side = self.how.crop
        cut = _crops_text(self.crops, (side, side)) if side else "the whole picture"
        mean, scale = (", ".join(f"{one:g}" for one in some) for some in (self.how.mean, self.how.scale))
        return f"{before}{cut}, (pixel - {mean or 0}) * {scale}"


def _in_test(image: Array, how: Augment) -> Array:
    return augment(image, how, "TEST", sample_rng(0, 0, 0))


def _shorter_to(size: tuple[int, ...], length: int) -> Size:
    height, width = size
    if not length:
        return height, width
    factor = length / min(height, width)
    return max(length, round(height * factor)), max(length, round(width * factor))


def _as_picture(image: Array, rgb: bool) -> Array:
    """Return C×H×W as H×W×C of bytes, blue first."""
    picture = images.to_hwc(np.clip(np.rint(image.astype(np.float32)), 0, 255).astype(np.uint8))
    return np.ascontiguousarray(picture[..., ::-1]) if rgb and picture.shape[2] == 3 else picture


def _by(size: tuple[int, ...] | None) -> str:
    return "x".join(map(str, size or ()))


def _crops_text(crops: int, size: Size) -> str:
    return f"{crops} crop{'s' if crops > 1 else ''} of {_by(size)}"


def _formula(numbers: Preprocessing) -> str:
    mean = "mean image" if numbers.mean_image is not None else ", ".join(f"{one:g}" for one in numbers.mean) or "0"
    return f"(pixel - {mean}) * {numbers.scale:g}"
