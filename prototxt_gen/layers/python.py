"""Python: a layer written in Python, which the prototxt only names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import ANY, LayerType
from prototxt_gen.message import Message, boolean, string

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from converters.graph import Graph


class PythonParameter(Message, field="python_param", number=130):
    module = string(1)
    layer = string(2)
    param_str = string(3)
    share_in_parallel = boolean(4)


def _unknown(layer: Layer, what: str) -> UnsupportedError:
    p = layer.get(PythonParameter)
    return UnsupportedError(
        f"layer {layer.name!r} ({layer.type}): {what} is known to its Python code alone: "
        f"class {p.layer!r} of module {p.module!r}, which is not part of the net"
    )


class Python(LayerType):
    """Whatever the named class of the named module does.

    Source: include/caffe/layers/python_layer.hpp PythonLayer::Reshape.
    Shape: known to that class alone.
    Blobs: none that the prototxt tells of.
    Differs: it has no form in PyTorch or ONNX; it is refused, never skipped.
    """

    type = "Python"
    params = (PythonParameter,)
    bottoms = ANY
    tops = ANY

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        raise _unknown(layer, "the shape of its tops")

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        raise _unknown(layer, "what it computes")

    def onnx(
        self, g: Graph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        raise _unknown(layer, "what it computes")
