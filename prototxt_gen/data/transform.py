"""Caffe's own transformation of an image (transform_param) in NumPy.

Source: src/caffe/data_transformer.cpp DataTransformer::Transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.data.data_errors import DataError

Array = npt.NDArray[Any]
Rng = np.random.Generator


@dataclass(frozen=True)
class Transform:
    """The fields of transform_param, with their prototxt names. Raises DataError where Caffe's CHECKs fail."""

    scale: float = 1.0
    mirror: bool = False
    crop_size: int = 0
    mean_file: str = ""
    mean_value: tuple[float, ...] = ()
    force_color: bool = False
    force_gray: bool = False

    def __post_init__(self) -> None:
        if self.mean_file and self.mean_value:
            raise DataError("transform_param: mean_file and mean_value exclude each other")
        if self.force_color and self.force_gray:
            raise DataError("transform_param: force_color and force_gray cannot both be set")

    @property
    def color(self) -> bool | None:
        """The argument `color` of `open_dataset` that corresponds to force_color and force_gray."""
        return True if self.force_color else False if self.force_gray else None

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return channels, height, width after the transformation. Source: DataTransformer::InferBlobShape."""
        channels, height, width = shape
        if min(height, width) < self.crop_size:
            raise DataError(f"transform_param: crop_size {self.crop_size} is larger than the image, {height}x{width}")
        return (channels, self.crop_size, self.crop_size) if self.crop_size else (channels, height, width)


def transform(image: Array, params: Transform, phase: str, rng: Rng | None = None) -> Array:
    """Return (pixel - mean) * scale, cropped and mirrored: channels x height x width, float32.

    `image`: channels x height x width. The crop is random in phase "TRAIN", central in "TEST"; mirroring is random in
    both, as in Caffe. Random numbers are drawn in Caffe's order: mirror, row, column. `rng` may be None if
    nothing is random. Raises DataError if the crop or the mean does not fit the image.
    """
    shape = params.output_shape(image.shape)
    mirrored = params.mirror and _draw_below(rng, 2) == 1
    top, left = crop_offsets(image.shape, shape, phase if params.crop_size else "TEST", rng)
    window = (slice(None), slice(top, top + shape[1]), slice(left, left + shape[2]))
    out = image[window].astype(np.float32)
    mean = _mean(params, image.shape)
    if mean is not None:
        out -= mean[window] if params.mean_file else mean
    out *= np.float32(params.scale)
    return np.ascontiguousarray(out[:, :, ::-1]) if mirrored else out


def crop_offsets(image: tuple[int, ...], out: tuple[int, ...], phase: str, rng: Rng | None) -> tuple[int, int]:
    """Return top and left of a crop of shape `out`: random in "TRAIN" (row first, then column), central in "TEST"."""
    rows, columns = image[1] - out[1], image[2] - out[2]
    if phase == "TRAIN":
        return _draw_below(rng, rows + 1), _draw_below(rng, columns + 1)
    return rows // 2, columns // 2


def _draw_below(rng: Rng | None, below: int) -> int:
    if rng is None:
        raise DataError("transform_param: a random crop or mirror needs a random generator")
    return int(rng.integers(below))


def _mean(params: Transform, shape: tuple[int, ...]) -> Array | None:
    """Return the mean to subtract: of the image's shape for mean_file, channels x 1 x 1 for mean_value."""
    if params.mean_file:
        mean = read_mean(params.mean_file)
        if mean.shape != shape:
            raise DataError(
                f"mean_file {params.mean_file} is {_show_shape(mean.shape)}, the image {_show_shape(shape)}"
            )
        return mean
    if not params.mean_value:
        return None
    if len(params.mean_value) not in (1, shape[0]):
        raise DataError(f"transform_param: {len(params.mean_value)} mean_values for {shape[0]} channels; give 1 or all")
    return np.asarray(params.mean_value, np.float32).reshape(-1, 1, 1)


@lru_cache(maxsize=8)
def read_mean(path: str) -> Array:
    """Return the mean image of a .binaryproto, channels x height x width, float32. Recent results are cached."""
    from prototxt_gen.caffemodel import read_binaryproto

    mean = np.asarray(read_binaryproto(path), np.float32)
    return mean.reshape(mean.shape[-3:])


def _show_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
