"""Python: a layer written in Python, which the prototxt only names."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import ANY, LayerType
from prototxt_gen.schema.message import Message, boolean, string

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


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


class PythonClass(LayerType):
    """Base of the layer types of public Python classes, told by module and name. They are no types of their own."""

    params = (PythonParameter,)
    module: ClassVar[str] = ""
    layer: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        CLASSES[cls.module, cls.layer] = cls()

    def settings(self, layer: Layer) -> dict[str, Any]:
        """Return param_str, a mapping in YAML, as plain data. Raises `layer.error` where it is none.

        Understood are numbers, texts in quotes, and lists of them, on one line each or in braces.
        """
        text = re.sub(r"!!python/\w+", "", layer.get(PythonParameter).param_str).strip()
        if not text.startswith("{"):
            text = "{" + ",".join(line.split("#")[0] for line in text.splitlines() if line.strip()) + "}"
        try:
            found = ast.literal_eval(re.sub(r"([{,]\s*)([A-Za-z_]\w*)\s*:", r"\1'\2':", text))
        except (ValueError, SyntaxError):
            found = None
        if not isinstance(found, dict):
            raise layer.error(f"param_str {layer.get(PythonParameter).param_str!r} is not understood: no mapping")
        return found


CLASSES: dict[tuple[str, str], LayerType] = {}
"""The layer types of public Python classes by module and class."""


class Python(LayerType):
    """Whatever the named class of the named module does. Public classes may have a class here: see `PythonClass`.

    Source: include/caffe/layers/python_layer.hpp PythonLayer::Reshape.
    Shape: known to that class alone; of our own AugmentedData N×C×crop×crop, and labels N.
    Blobs: none that the prototxt tells of.
    Differs: it has no form in PyTorch or ONNX; it is refused, never skipped.
    """

    type = "Python"
    params = (PythonParameter,)
    bottoms = ANY
    tops = ANY

    def of(self, layer: Layer) -> LayerType:
        p = layer.get(PythonParameter)
        return CLASSES.get((p.module, p.layer), self)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        image = _augmented(layer.get(PythonParameter))
        if image is None or len(layer.tops) != 2:
            raise _unknown(layer, "the shape of its tops")
        return [image, image[:1]]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        raise _unknown(layer, "what it computes")

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        raise _unknown(layer, "what it computes")
