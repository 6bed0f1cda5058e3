"""Python: a layer written in Python, which the prototxt only names."""

from __future__ import annotations

import json
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


OURS = ("prototxt_gen.data.caffe_layer", "AugmentedData")
"""Module and class of the data layer that this toolkit brings."""


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


def _augmented(p: PythonParameter) -> Shape | None:
    """Return the image shape of our own data layer, whose parameters are JSON, where these tell it."""
    if (p.module, p.layer) != OURS:
        return None
    try:
        fields = json.loads(p.param_str)
        crop = fields["augment"]["crop"]
        return (fields["batch_size"], 3 if fields["color"] else 1, crop, crop)
    except (ValueError, KeyError, TypeError):
        return None


class Python(LayerType):
    """Whatever the named class of the named module does.

    Source: include/caffe/layers/python_layer.hpp PythonLayer::Reshape.
    Shape: known to that class alone; of our own AugmentedData N×C×crop×crop, and labels N.
    Blobs: none that the prototxt tells of.
    Differs: it has no form in PyTorch or ONNX; it is refused, never skipped.
    """

    type = "Python"
    params = (PythonParameter,)
    bottoms = ANY
    tops = ANY

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        image = _augmented(layer.get(PythonParameter))
        if image is None or len(layer.tops) != 2:
            raise _unknown(layer, "the shape of its tops")
        return [image, image[:1]]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        raise _unknown(layer, "what it computes")

    def onnx(
        self, g: Graph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        raise _unknown(layer, "what it computes")
