"""Examples of layer types: small cases on which the tests compare Caffe, PyTorch and ONNX.

Real Caffe's results for the examples are recorded in tests/golden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Shape

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Draw = Callable[["np.random.Generator", Shape], "Array"]
"""A function that returns the values of a bottom or of a learned blob of the given shape."""


def normal(rng: np.random.Generator, shape: Shape) -> Array:
    """Draw from the standard normal distribution."""
    return rng.standard_normal(shape)


def positive(rng: np.random.Generator, shape: Shape) -> Array:
    """Draw uniformly from 0.5 to 2, for logarithms, roots and divisors."""
    return rng.uniform(0.5, 2.0, shape)


def probabilities(rng: np.random.Generator, shape: Shape) -> Array:
    """Draw uniformly from 0.05 to 0.95."""
    return rng.uniform(0.05, 0.95, shape)


def labels(classes: int) -> Draw:
    """Return a function that draws whole numbers from 0 to classes-1."""
    return lambda rng, shape: rng.integers(0, classes, shape).astype("float32")


def literal(values: Sequence[Any]) -> Draw:
    """Return a function that returns these values, such as boxes or sequence markers, in the given shape."""

    def draw(rng: np.random.Generator, shape: Shape) -> Array:
        import numpy as np

        return np.asarray(values, dtype="float32").reshape(shape)

    return draw


@dataclass(frozen=True)
class Example:
    """One layer with given parameters and bottoms of given shapes.

    `params` is prototxt text: the fields of the layer other than name, type, bottom and top. `draws` fills the bottoms,
    with one function for all or one for each. `blobs` fills the learned blobs. `gradients` says for which bottoms
    Caffe's gradient is recorded: for all (True), for none (False), or one flag for each bottom.
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
