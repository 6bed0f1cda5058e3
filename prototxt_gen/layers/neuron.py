"""The base class of layer types that compute each element on its own."""

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
    """Base class of layer types whose top has the bottom's shape. Source: include/caffe/layers/neuron_layer.hpp."""

    def check(self, layer: Layer) -> None:
        """Raise `layer.error(…)` if the parameters are not valid. Default: no check."""

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        self.check(layer)
        return [bottoms[0]]


@cache
def _elementwise_class() -> type[nn.Module]:
    from torch import nn

    class Elementwise(nn.Module):
        """Applies a function that torch.nn has no module for to each element."""

        def __init__(self, function: Function, formula: str) -> None:
            super().__init__()
            self.function, self.formula = function, formula

        def forward(self, bottom: Tensor) -> Tensor:
            return self.function(bottom)

        def extra_repr(self) -> str:
            return self.formula

    return Elementwise


def elementwise(function: Function, formula: str) -> nn.Module:
    """Return a module that applies `function` to its input. Printing the module shows `formula`."""
    return _elementwise_class()(function, formula)
