"""What the layer types that treat each element by itself share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType

if TYPE_CHECKING:
    from torch import Tensor, nn

Function = Callable[["Tensor"], "Tensor"]


class Neuron(LayerType):
    """Base of the layers whose top has its bottom's shape. Source: include/caffe/layers/neuron_layer.hpp."""

    def check(self, layer: Layer) -> None:
        """Raise where the parameters make no sense."""

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        self.check(layer)
        return [bottoms[0]]


@cache
def _elementwise() -> type[nn.Module]:
    from torch import nn

    class Elementwise(nn.Module):
        """A function of each element that no stock module computes."""

        def __init__(self, function: Function, words: str) -> None:
            super().__init__()
            self.function, self.words = function, words

        def forward(self, bottom: Tensor) -> Tensor:
            return self.function(bottom)

        def extra_repr(self) -> str:
            return self.words

    return Elementwise


def elementwise(function: Function, words: str) -> nn.Module:
    """Return a module that applies `function`; `words` say what that is when the module is printed."""
    return _elementwise()(function, words)
