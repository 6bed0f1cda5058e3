"""Layer type Python: a layer written in Python, of which the prototxt has only the module and the class."""

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


AUGMENTED_DATA = ("prototxt_gen.data.caffe_layer", "AugmentedData")
"""Module and class of this project's data layer."""


class PythonParameter(Message, field="python_param", number=130):
    module = string(1)
    layer = string(2)
    param_str = string(3)
    share_in_parallel = boolean(4)


def _unknown_error(layer: Layer, what: str) -> UnsupportedError:
    """Return the error of a layer whose shape or computation only its Python class defines."""
    p = layer.get(PythonParameter)
    return UnsupportedError(
        f"layer {layer.name!r} ({layer.type}): {what} is defined by Python code that is not part of the net: "
        f"class {p.layer!r} of module {p.module!r}"
    )


def _augmented_data_shape(p: PythonParameter) -> Shape | None:
    """Return the image shape of this project's AugmentedData layer from its param_str (JSON), or None."""
    if (p.module, p.layer) != AUGMENTED_DATA:
        return None
    try:
        fields = json.loads(p.param_str)
        crop = fields["augment"]["crop"]
        return (fields["batch_size"], 3 if fields["color"] else 1, crop, crop)
    except (ValueError, KeyError, TypeError):
        return None


class PythonClass(LayerType):
    """Base class of layer types for public Python classes, found by module and class name.

    They are not registered by a `type`, since all of them have the type Python in prototxts.
    """

    params = (PythonParameter,)
    module: ClassVar[str] = ""
    layer: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        CLASSES[cls.module, cls.layer] = cls()

    def settings(self, layer: Layer) -> dict[str, Any]:
        """Return param_str, a YAML mapping, as a dict. Raises `layer.error(…)` if it is not a mapping.

        Supported are numbers, quoted strings and lists of them, one key per line or all in braces.
        """
        text = re.sub(r"!!python/\w+", "", layer.get(PythonParameter).param_str).strip()
        if not text.startswith("{"):
            text = "{" + ",".join(line.split("#")[0] for line in text.splitlines() if line.strip()) + "}"
        try:
            settings = ast.literal_eval(re.sub(r"([{,]\s*)([A-Za-z_]\w*)\s*:", r"\1'\2':", text))
        except (ValueError, SyntaxError):
            settings = None
        if not isinstance(settings, dict):
            raise layer.error(f"param_str {layer.get(PythonParameter).param_str!r} is not a YAML mapping")
        return settings


CLASSES: dict[tuple[str, str], LayerType] = {}
"""Layer types of public Python classes, by module and class name."""


class Python(LayerType):
    """Run the named class of the named module. Some public classes have a layer type of their own; see `PythonClass`.

    Source: include/caffe/layers/python_layer.hpp PythonLayer::Reshape.
    Shape: defined by that class; known for this project's AugmentedData: N×C×crop×crop, labels N.
    Blobs: unknown; none in the prototxt.
    Differs: conversion to PyTorch and ONNX is refused.
    """

    type = "Python"
    params = (PythonParameter,)
    bottoms = ANY
    tops = ANY

    def of(self, layer: Layer) -> LayerType:
        p = layer.get(PythonParameter)
        return CLASSES.get((p.module, p.layer), self)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        image = _augmented_data_shape(layer.get(PythonParameter))
        if image is None or len(layer.tops) != 2:
            raise _unknown_error(layer, "the shape of its tops")
        return [image, image[:1]]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        raise _unknown_error(layer, "its computation")

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        raise _unknown_error(layer, "its computation")
