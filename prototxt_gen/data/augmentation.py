"""The augmentation that residual nets are trained with: size, aspect ratio, colour, mirror, shifts.

Every random number comes from the generator passed in. `rng_for(seed, iteration, index)` makes one that depends on
nothing else, so a run that is resumed, or divided among processes, sees exactly the pictures of an unbroken one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.common.errors import nearest
from prototxt_gen.data import images
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.transform import Rng, Transform, offsets, transform

__all__ = ["Augment", "Rng", "Transform", "augment", "rng_for", "transform"]

Array = npt.NDArray[Any]
Box = tuple[int, int, int, int]

# Principal components of ImageNet's pixels, RGB in 0..1: each column of vectors times its value is one direction.
# Krizhevsky et al. 2012, section 4.1, draw along them; these numbers are those of the ResNet trainers in Torch.
_PCA_VALUES = np.array([0.2175, 0.0188, 0.0045], np.float32)
_PCA_VECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32
)
_LUMA_RGB = np.array([0.299, 0.587, 0.114], np.float32)
_AREA_TRIES = 10


@dataclass(frozen=True)
class Augment:
    """What is done to a training picture. Defaults: the ImageNet recipe; `cifar()` gives that of the small nets.

    crop        side of the square that comes out; 0 keeps the size
    shorter     scale augmentation: the shorter side is drawn from this range before the crop is cut
    area        instead of `shorter`: the crop covers this share of the picture (as GoogLeNet was trained)
    aspect      width / height of the cut, drawn evenly on a logarithmic scale; (1, 1) keeps squares square
    pad         zeros (after the mean is subtracted) around the picture before the crop; for pictures not resized
    mirror      half of the pictures are mirrored
    lighting    standard deviation of AlexNet's shift along the principal colours; 0 for none
    brightness, contrast, saturation   each factor is drawn from 1 - value to 1 + value, in random order
    mean, scale one number, or one per channel in the data's order: out = (pixel - mean) * scale
    order       "bgr" or "rgb": the data's channel order, for the colours
    test_shorter   in TEST the shorter side, before the crop in the middle (where training resizes)
    """

    crop: int = 224
    shorter: tuple[int, int] | None = (256, 480)
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 0
    mirror: bool = True
    lighting: float = 0.1
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = (1.0,)
    order: str = "bgr"
    test_shorter: int = 256

    def __post_init__(self) -> None:
        problems = [text for wrong, text in self._checks() if wrong]
        if problems:
            raise DataError(f"augment: {'; '.join(problems)}")

    def _checks(self) -> list[tuple[bool, str]]:
        ranges = {"shorter": self.shorter or (1, 1), "area": self.area or (1, 1), "aspect": self.aspect}
        return [
            (self.resizes and not self.crop, "shorter and area need a crop"),
            (bool(self.shorter and self.area), "shorter and area are two ways to do one thing, give one of them"),
            (bool(self.resizes and self.pad), "pad is for pictures that are not resized"),
            (min(self.crop, self.pad) < 0, "crop and pad cannot be negative"),
            (self.order not in ("bgr", "rgb"), f"order is 'bgr' or 'rgb', not {self.order!r}"),
            (0 < self.test_shorter < self.crop and self.resizes, "test_shorter is smaller than crop"),
            *(
                (len(pair) != 2 or not 0 < pair[0] <= pair[1], f"{name} is a range (low, high) above 0, not {pair}")
                for name, pair in ranges.items()
            ),
        ]

    @property
    def resizes(self) -> bool:
        """Return whether pictures are cut and resized, rather than shifted."""
        return bool(self.shorter or self.area)

    @classmethod
    def imagenet(cls) -> Augment:
        """Return the recipe for 224 x 224 nets, with ImageNet's usual mean in BGR."""
        return cls(mean=(104.0, 117.0, 123.0))

    @classmethod
    def cifar(cls) -> Augment:
        """Return the recipe for 32 x 32 nets: 4 zeros around, a random crop, mirrored."""
        return cls(crop=32, shorter=None, aspect=(1.0, 1.0), pad=4, lighting=0.0)

    @classmethod
    def none(cls) -> Augment:
        """Return the recipe that leaves pictures as they are."""
        return cls(crop=0, shorter=None, aspect=(1.0, 1.0), mirror=False, lighting=0.0)

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Augment:
        """Build from a mapping as JSON gives it; `preset` ("imagenet", "cifar", "none") supplies what is not named."""
        presets: dict[str, Callable[[], Augment]] = {"imagenet": cls.imagenet, "cifar": cls.cifar, "none": cls.none}
        preset = given.get("preset", "none")
        if preset not in presets:
            raise DataError(f"augment: no preset {preset!r}{nearest(str(preset), presets)}")
        known = [field.name for field in fields(cls)]
        values = {name: _frozen(value) for name, value in given.items() if name != "preset"}
        for name in values:
            if name not in known:
                raise DataError(f"augment: no field {name!r}{nearest(name, known)}")
        base = presets[preset]()
        return cls(**{name: values.get(name, getattr(base, name)) for name in known})

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return channels, height, width of what comes out for a picture of `shape`."""
        channels, height, width = shape
        if not self.resizes and min(height, width) + 2 * self.pad < self.crop:
            raise DataError(f"augment: crop {self.crop} is larger than the image, {height}x{width} with pad {self.pad}")
        return (channels, self.crop, self.crop) if self.crop else (channels, height, width)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def rng_for(seed: int, iteration: int, index: int) -> Rng:
    """Return the generator for one sample of one iteration; equal arguments give equal draws, on any machine."""
    return np.random.default_rng((seed, iteration, index, 1))


def augment(image: Array, how: Augment, phase: str, rng: Rng) -> Array:
    """Return the picture as the net shall see it: channels x height x width, float32.

    `image`: channels x height x width, uint8 or float with values 0..255. In phase "TEST" nothing is drawn: resized to
    `test_shorter`, cropped in the middle.
    """
    train = phase == "TRAIN"
    shape = how.output_shape(image.shape)
    if how.resizes:
        image = _cut(image, _random_box(image.shape, how, rng) if train else _middle_box(image.shape, how), how.crop)
    out = image.astype(np.float32)
    if train:
        out = _colored(out, how, rng)
    out = _normal(out, how)
    if not how.resizes and how.crop:
        out = np.pad(out, ((0, 0), (how.pad, how.pad), (how.pad, how.pad))) if how.pad else out
        top, left = offsets(out.shape, shape, phase, rng)
        out = out[:, top : top + shape[1], left : left + shape[2]]
    if train and how.mirror and rng.integers(2):
        out = out[:, :, ::-1]
    return np.ascontiguousarray(out)


def _cut(image: Array, box: Box, side: int) -> Array:
    """Return the box (top, left, height, width) resized to a square."""
    top, left, height, width = box
    part = images.to_hwc(image[:, top : top + height, left : left + width])
    return images.to_chw(images.resize(part, (side, side)))


def _random_box(shape: tuple[int, ...], how: Augment, rng: Rng) -> Box:
    height, width = shape[1:]
    size = _area_size(height, width, how, rng) if how.area else _scale_size(height, width, how, rng)
    return int(rng.integers(height - size[0] + 1)), int(rng.integers(width - size[1] + 1)), *size


def _scale_size(height: int, width: int, how: Augment, rng: Rng) -> tuple[int, int]:
    """Return the window that becomes the crop once the picture's shorter side has the length drawn."""
    low, high = how.shorter or (how.crop, how.crop)
    side = how.crop * min(height, width) / int(rng.integers(low, high + 1))
    stretch = math.sqrt(_aspect(how, rng))
    return _within(side / stretch, height), _within(side * stretch, width)


def _area_size(height: int, width: int, how: Augment, rng: Rng) -> tuple[int, int]:
    """Return a window of the share and shape drawn; the largest square where ten draws do not fit the picture."""
    low, high = how.area or (1.0, 1.0)
    for _ in range(_AREA_TRIES):
        side = math.sqrt(rng.uniform(low, high) * height * width)
        stretch = math.sqrt(_aspect(how, rng))
        if round(side / stretch) <= height and round(side * stretch) <= width:
            return _within(side / stretch, height), _within(side * stretch, width)
    return min(height, width), min(height, width)


def _aspect(how: Augment, rng: Rng) -> float:
    return math.exp(rng.uniform(math.log(how.aspect[0]), math.log(how.aspect[1])))


def _within(length: float, most: int) -> int:
    return max(1, min(most, round(length)))


def _middle_box(shape: tuple[int, ...], how: Augment) -> Box:
    height, width = shape[1:]
    side = _within(how.crop * min(height, width) / (how.test_shorter or how.crop), min(height, width))
    return (height - side) // 2, (width - side) // 2, side, side


def _normal(image: Array, how: Augment) -> Array:
    for name, values in (("mean", how.mean), ("scale", how.scale)):
        if len(values) not in (0, 1, len(image)):
            raise DataError(f"augment: {len(values)} numbers in {name} for {len(image)} channels; give 1 or all")
    if how.mean:
        image -= np.asarray(how.mean, np.float32).reshape(-1, 1, 1)
    image *= np.asarray(how.scale or (1.0,), np.float32).reshape(-1, 1, 1)
    return image


def _colored(image: Array, how: Augment, rng: Rng) -> Array:
    """Apply the colour changes to float pixels; values may leave 0..255, as in the trainers these come from."""
    if (how.lighting or how.saturation) and len(image) != 3:
        raise DataError(f"augment: lighting and saturation need 3 channels, the image has {len(image)}")
    steps: list[tuple[float, Callable[[Array, float], Array]]] = [
        (how.brightness, lambda pixels, factor: pixels * factor),
        (how.contrast, lambda pixels, factor: _blend(pixels, _luma(pixels, how.order).mean(), factor)),
        (how.saturation, lambda pixels, factor: _blend(pixels, _luma(pixels, how.order), factor)),
    ]
    steps = [step for step in steps if step[0]]
    for place in rng.permutation(len(steps)) if steps else ():
        strength, change = steps[place]
        image = change(image, np.float32(rng.uniform(1 - strength, 1 + strength)))
    return image + _lighting(how, rng) if how.lighting else image


def _blend(pixels: Array, toward: Any, factor: float) -> Array:
    return np.asarray(pixels * factor + toward * (1 - factor))


def _luma(pixels: Array, order: str) -> Array:
    """Return height x width: the grey of 3 channels, or the one channel there is."""
    if len(pixels) != 3:
        return np.asarray(pixels[0])
    return np.asarray(np.tensordot(_LUMA_RGB if order == "rgb" else _LUMA_RGB[::-1], pixels, 1))


def _lighting(how: Augment, rng: Rng) -> Array:
    shift = 255 * (_PCA_VECTORS @ (_PCA_VALUES * rng.normal(0, how.lighting, 3).astype(np.float32)))
    return np.asarray(shift if how.order == "rgb" else shift[::-1]).reshape(3, 1, 1)
