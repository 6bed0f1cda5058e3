"""Caffe's fillers: initial values of learned blobs from a seeded random generator.

The distributions are Caffe's, the random numbers are not. Each blob has its own generator, seeded by the run's seed,
the layer's name and the blob's index, so that adding or removing a layer does not change the others.
Source: include/caffe/filler.hpp.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from prototxt_gen.common.errors import PrototxtGenError, nearest
from prototxt_gen.ir import Shape, show
from prototxt_gen.schema.caffe_proto import FillerParameter

Array = np.ndarray[Any, Any]
Rng = np.random.Generator


def blob_rng(seed: int, layer: str, index: int) -> Rng:
    """Return the random generator for blob number `index` of a layer."""
    return np.random.default_rng((seed, zlib.crc32(layer.encode("utf-8", "surrogateescape")), index, 3))


def fill(filler: FillerParameter, shape: Shape, rng: Rng) -> Array:
    """Return a filled float32 array. Raises PrototxtGenError for an unknown filler and for an unsuitable shape."""
    fill_function = _FILLERS.get(filler.type)
    if fill_function is None:
        choices = f"there are {', '.join(_FILLERS)}{nearest(filler.type, _FILLERS)}"
        raise PrototxtGenError(f"there is no filler {filler.type!r}; {choices}")
    if not math.prod(shape):
        raise PrototxtGenError(f"filler {filler.type!r}: there is nothing to fill in {show(shape)}")
    if filler.sparse != -1 and filler.type != "gaussian":
        raise PrototxtGenError(f"filler {filler.type!r} cannot be sparse; only gaussian can")
    return np.asarray(fill_function(filler, shape, rng), np.float32)


def _constant(filler: FillerParameter, shape: Shape, rng: Rng) -> Array:
    return np.full(shape, filler.value, np.float32)


def _uniform(filler: FillerParameter, shape: Shape, rng: Rng) -> Array:
    return _uniform_between(shape, filler.min, filler.max, rng)


def _gaussian(filler: FillerParameter, shape: Shape, rng: Rng) -> Array:
    """Gaussian numbers. With `sparse`, each output has that many non-zero inputs on average; the rest are 0."""
    values = _normal(shape, filler.std, rng)
    values += np.float32(filler.mean)
    if filler.sparse < -1 or (filler.sparse >= 0 and (not shape or filler.sparse > shape[0])):
        raise PrototxtGenError(
            f"filler 'gaussian': sparse {filler.sparse} is not from 0 to the {show(shape[:1])} outputs"
        )
    return np.where(rng.random(shape) < filler.sparse / shape[0], values, 0) if filler.sparse >= 0 else values


def _positive_unitball(filler: FillerParameter, shape: Shape, rng: Rng) -> Array:
    """Numbers from 0 to 1 whose sum over all axes but the first is 1."""
    values = _uniform_between(shape, 0, 1, rng).reshape(shape[0], -1)
    unit: Array = values / values.sum(1, keepdims=True)
    return unit.reshape(shape)


def _xavier(filler: FillerParameter, shape: Shape, rng: Rng) -> Array:
    """Uniform numbers with variance 1/n, n as in `_fan`."""
    scale = math.sqrt(3 / _fan(filler, shape))
    return _uniform_between(shape, -scale, scale, rng)


def _msra(filler: FillerParameter, shape: Shape, rng: Rng) -> Array:
    """Gaussian numbers with variance 2/n, n as in `_fan`."""
    return _normal(shape, math.sqrt(2 / _fan(filler, shape)), rng)


def _fan(filler: FillerParameter, shape: Shape) -> float:
    """Return n as variance_norm selects it: inputs per output, outputs per input, or the mean of both."""
    count = math.prod(shape)
    fan_in, fan_out = count / (shape[0] if shape else 1), count / (shape[1] if len(shape) > 1 else 1)
    return {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[filler.variance_norm]


def _bilinear(filler: FillerParameter, shape: Shape, rng: Rng) -> Array:
    """The kernel of bilinear interpolation, the same in every channel."""
    if len(shape) != 4 or shape[2] != shape[3]:
        raise PrototxtGenError(f"filler 'bilinear' needs a blob of four axes and square kernels, not {show(shape)}")
    factor = math.ceil(shape[3] / 2)
    weights = 1 - np.abs(np.arange(shape[3]) / factor - (shape[3] - 1) / (2 * factor))
    return np.broadcast_to(np.outer(weights, weights), shape)


def _normal(shape: Shape, std: float, rng: Rng) -> Array:
    values: Array = rng.standard_normal(shape, np.float32)
    values *= np.float32(std)
    return values


def _uniform_between(shape: Shape, low: float, high: float, rng: Rng) -> Array:
    values: Array = rng.random(shape, np.float32)
    values *= np.float32(high - low)
    values += np.float32(low)
    return values


_FILLERS: dict[str, Callable[[FillerParameter, Shape, Rng], Array]] = {
    "constant": _constant,
    "gaussian": _gaussian,
    "uniform": _uniform,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
    "positive_unitball": _positive_unitball,
}
