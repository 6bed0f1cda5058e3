"""The registry of layer types: it imports every file of the family folders whose name does not begin with `_`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from prototxt_gen.common.errors import UnsupportedError, nearest
from prototxt_gen.ir import Layer
from prototxt_gen.layers.base import REGISTRY, LayerType


@cache
def _import_layer_types() -> None:
    for family in (module.name for module in iter_modules(__path__) if module.ispkg):
        package = import_module(f"{__name__}.{family}")
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            if not module.name.rpartition(".")[2].startswith("_"):
                import_module(module.name)


def all_layer_types() -> dict[str, LayerType]:
    """Return all layer types by their names in prototxts."""
    _import_layer_types()
    return REGISTRY


def find_layer_type(type_: str) -> LayerType | None:
    """Return the `LayerType` of a type name such as "Pooling", or None if the type is unknown."""
    return all_layer_types().get(type_)


def layer_type_of(layer: Layer) -> LayerType:
    """Return the `LayerType` that handles a layer. Raises UnsupportedError if the layer's type is unknown."""
    layer_type = find_layer_type(layer.type)
    if layer_type is None:
        hint = nearest(layer.type, all_layer_types())
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): the type is not known{hint}")
    return layer_type.of(layer)
