"""Examples: small cases of a layer type, run through real Caffe once and through every lowering ever after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Shape

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Draw = Callable[["np.random.Generator", Shape], "Array"]
"""Makes the content of one bottom."""


def normal(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.standard_normal(shape)


def positive(rng: np.random.Generator, shape: Shape) -> Array:
    """From 0.5 to 2: for logarithms, roots and divisors."""
    return rng.uniform(0.5, 2.0, shape)


def unit(rng: np.random.Generator, shape: Shape) -> Array:
    """From 0.05 to 0.95: for probabilities."""
    return rng.uniform(0.05, 0.95, shape)


def labels(classes: int) -> Draw:
    """Whole numbers from 0 to classes-1."""
    return lambda rng, shape: rng.integers(0, classes, shape).astype("float32")


def literal(values: Sequence[Any]) -> Draw:
    """These very numbers, such as boxes or sequence marks."""

    def draw(rng: np.random.Generator, shape: Shape) -> Array:
        import numpy as np

        return np.asarray(values, dtype="float32").reshape(shape)

    return draw


@dataclass(frozen=True)
class Example:
    """One layer with given parameters on bottoms of given shapes.

    `params` is the prototxt text inside the layer beside name, type, bottoms and tops. `draws` fills the bottoms: one
    for all, or one each. `blobs` fills the learned arrays. `gradients` says for which bottoms Caffe's backward pass is
    recorded: all, none, or one flag each.
    """

    name: str
    bottoms: tuple[Shape, ...]
    params: str = ""
    tops: int = 1
    phase: str = "TEST"
    draws: tuple[Draw, ...] = (normal,)
    blobs: Draw = normal
    gradients: tuple[bool, ...] | bool = True
    in_place: bool = False

    def draw_bottoms(self, rng: np.random.Generator) -> Iterator[Array]:
        """Yield a float32 array for each bottom."""
        draws = self.draws * len(self.bottoms) if len(self.draws) == 1 else self.draws
        for draw, shape in zip(draws, self.bottoms, strict=True):
            yield draw(rng, shape).astype("float32")
