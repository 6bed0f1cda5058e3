"""Augmentation of training images as for residual nets: size, aspect ratio, colour, mirroring, shifts.

All random numbers come from the generator that the caller passes. `sample_rng(seed, iteration, index)` returns one that
depends on nothing else, so a resumed run, or one divided among processes, sees exactly the same images.
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
from prototxt_gen.data.transform import Rng, Transform, crop_offsets, transform

__all__ = ["Augment", "Rng", "Transform", "augment", "sample_rng", "transform"]

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
    """The augmentation settings. Defaults: the usual ImageNet recipe; `cifar()` returns the recipe for small nets.

    crop        side of the output square in pixels; 0 keeps the size
    shorter     scale augmentation: the shorter side is drawn from this range before the crop is cut out
    area        instead of `shorter`: the crop covers a share of the image drawn from this range (as for GoogLeNet)
    aspect      range of width / height of the crop, drawn uniformly on a logarithmic scale; (1, 1) keeps squares
    pad         zeros (after mean subtraction) around the image before the crop; only for images that are not resized
    mirror      mirror half of the images
    lighting    standard deviation of AlexNet's shift along the principal colours; 0 for none
    brightness, contrast, saturation   each factor is drawn from 1 - value to 1 + value, in random order
    mean, scale one number, or one per channel in the data's channel order: out = (pixel - mean) * scale
    order       "bgr" or "rgb": channel order of the data, which the colour changes need
    test_shorter   in phase TEST: the shorter side in pixels before the centre crop (if training resizes)
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
            (bool(self.shorter and self.area), "shorter and area exclude each other: give only one of them"),
            (bool(self.resizes and self.pad), "pad is only for images that are not resized"),
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
        """Whether images are cut and resized, rather than shifted."""
        return bool(self.shorter or self.area)

    @classmethod
    def imagenet(cls) -> Augment:
        """Return the recipe for nets with 224 x 224 inputs, with ImageNet's usual mean in BGR."""
        return cls(mean=(104.0, 117.0, 123.0))

    @classmethod
    def cifar(cls) -> Augment:
        """Return the recipe for nets with 32 x 32 inputs: 4 pixels of padding, a random crop, mirroring."""
        return cls(crop=32, shorter=None, aspect=(1.0, 1.0), pad=4, lighting=0.0)

    @classmethod
    def none(cls) -> Augment:
        """Return the recipe that does not change images."""
        return cls(crop=0, shorter=None, aspect=(1.0, 1.0), mirror=False, lighting=0.0)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Augment:
        """Return the settings of a JSON object; `preset` ("imagenet", "cifar", "none") sets the missing fields.

        Raises DataError for an unknown field or preset.
        """
        presets: dict[str, Callable[[], Augment]] = {"imagenet": cls.imagenet, "cifar": cls.cifar, "none": cls.none}
        preset = mapping.get("preset", "none")
        if preset not in presets:
            raise DataError(f"augment: no preset {preset!r}{nearest(str(preset), presets)}")
        field_names = [field.name for field in fields(cls)]
        values = {name: _frozen(value) for name, value in mapping.items() if name != "preset"}
        for name in values:
            if name not in field_names:
                raise DataError(f"augment: no field {name!r}{nearest(name, field_names)}")
        base = presets[preset]()
        return cls(**{name: values.get(name, getattr(base, name)) for name in field_names})

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return channels, height, width of the output for an image of `shape`. Raises DataError if it is too small."""
        channels, height, width = shape
        if not self.resizes and min(height, width) + 2 * self.pad < self.crop:
            raise DataError(f"augment: crop {self.crop} is larger than the image, {height}x{width} with pad {self.pad}")
        return (channels, self.crop, self.crop) if self.crop else (channels, height, width)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def sample_rng(seed: int, iteration: int, index: int) -> Rng:
    """Return the random generator for one sample of one iteration; equal arguments give equal random numbers."""
    return np.random.default_rng((seed, iteration, index, 1))


def augment(image: Array, recipe: Augment, phase: str, rng: Rng) -> Array:
    """Return the augmented image: channels x height x width, float32.

    `image`: channels x height x width, uint8 or float with values 0..255. In phase "TEST" nothing is random: the image
    is resized to `test_shorter` and cropped in the centre.
    """
    train = phase == "TRAIN"
    shape = recipe.output_shape(image.shape)
    if recipe.resizes:
        box = _random_box(image.shape, recipe, rng) if train else _middle_box(image.shape, recipe)
        image = _cut_and_resize(image, box, recipe.crop)
    out = image.astype(np.float32)
    if train:
        out = _with_colour_changes(out, recipe, rng)
    out = _normalised(out, recipe)
    if not recipe.resizes and recipe.crop:
        out = np.pad(out, ((0, 0), (recipe.pad, recipe.pad), (recipe.pad, recipe.pad))) if recipe.pad else out
        top, left = crop_offsets(out.shape, shape, phase, rng)
        out = out[:, top : top + shape[1], left : left + shape[2]]
    if train and recipe.mirror and rng.integers(2):
        out = out[:, :, ::-1]
    return np.ascontiguousarray(out)


def _cut_and_resize(image: Array, box: Box, side: int) -> Array:
    """Return the box (top, left, height, width) of the image, resized to a square with this side."""
    top, left, height, width = box
    part = images.to_hwc(image[:, top : top + height, left : left + width])
    return images.to_chw(images.resize(part, (side, side)))


def _random_box(shape: tuple[int, ...], recipe: Augment, rng: Rng) -> Box:
    height, width = shape[1:]
    size = _area_size(height, width, recipe, rng) if recipe.area else _scale_size(height, width, recipe, rng)
    return int(rng.integers(height - size[0] + 1)), int(rng.integers(width - size[1] + 1)), *size


def _scale_size(height: int, width: int, recipe: Augment, rng: Rng) -> tuple[int, int]:
    """Return height and width of the window that becomes the crop, for a randomly drawn length of the shorter side."""
    low, high = recipe.shorter or (recipe.crop, recipe.crop)
    side = recipe.crop * min(height, width) / int(rng.integers(low, high + 1))
    stretch = math.sqrt(_aspect(recipe, rng))
    return _clamped(side / stretch, height), _clamped(side * stretch, width)


def _area_size(height: int, width: int, recipe: Augment, rng: Rng) -> tuple[int, int]:
    """Return height and width of a window with random area and aspect ratio.

    After ten draws that do not fit the image, return the largest square.
    """
    low, high = recipe.area or (1.0, 1.0)
    for _ in range(_AREA_TRIES):
        side = math.sqrt(rng.uniform(low, high) * height * width)
        stretch = math.sqrt(_aspect(recipe, rng))
        if round(side / stretch) <= height and round(side * stretch) <= width:
            return _clamped(side / stretch, height), _clamped(side * stretch, width)
    return min(height, width), min(height, width)


def _aspect(recipe: Augment, rng: Rng) -> float:
    return math.exp(rng.uniform(math.log(recipe.aspect[0]), math.log(recipe.aspect[1])))


def _clamped(length: float, most: int) -> int:
    return max(1, min(most, round(length)))


def _middle_box(shape: tuple[int, ...], recipe: Augment) -> Box:
    height, width = shape[1:]
    side = _clamped(recipe.crop * min(height, width) / (recipe.test_shorter or recipe.crop), min(height, width))
    return (height - side) // 2, (width - side) // 2, side, side


def _normalised(image: Array, recipe: Augment) -> Array:
    for name, values in (("mean", recipe.mean), ("scale", recipe.scale)):
        if len(values) not in (0, 1, len(image)):
            raise DataError(f"augment: {len(values)} numbers in {name} for {len(image)} channels; give 1 or all")
    if recipe.mean:
        image -= np.asarray(recipe.mean, np.float32).reshape(-1, 1, 1)
    image *= np.asarray(recipe.scale or (1.0,), np.float32).reshape(-1, 1, 1)
    return image


def _with_colour_changes(image: Array, recipe: Augment, rng: Rng) -> Array:
    """Return float pixels after the colour changes. Values may leave 0..255, as in the original training code."""
    if (recipe.lighting or recipe.saturation) and len(image) != 3:
        raise DataError(f"augment: lighting and saturation need 3 channels, the image has {len(image)}")
    steps: list[tuple[float, Callable[[Array, float], Array]]] = [
        (recipe.brightness, lambda pixels, factor: pixels * factor),
        (recipe.contrast, lambda pixels, factor: _blend(pixels, _luminance(pixels, recipe.order).mean(), factor)),
        (recipe.saturation, lambda pixels, factor: _blend(pixels, _luminance(pixels, recipe.order), factor)),
    ]
    steps = [step for step in steps if step[0]]
    for index in rng.permutation(len(steps)) if steps else ():
        strength, change = steps[index]
        image = change(image, np.float32(rng.uniform(1 - strength, 1 + strength)))
    return image + _lighting(recipe, rng) if recipe.lighting else image


def _blend(pixels: Array, toward: Any, factor: float) -> Array:
    return np.asarray(pixels * factor + toward * (1 - factor))


def _luminance(pixels: Array, order: str) -> Array:
    """Return height x width: the luminance of 3 channels, or the single channel."""
    if len(pixels) != 3:
        return np.asarray(pixels[0])
    return np.asarray(np.tensordot(_LUMA_RGB if order == "rgb" else _LUMA_RGB[::-1], pixels, 1))


def _lighting(recipe: Augment, rng: Rng) -> Array:
    shift = 255 * (_PCA_VECTORS @ (_PCA_VALUES * rng.normal(0, recipe.lighting, 3).astype(np.float32)))
    return np.asarray(shift if recipe.order == "rgb" else shift[::-1]).reshape(3, 1, 1)
