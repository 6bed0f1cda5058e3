"""The registry of layer types: it finds the rooms, one module each in this folder, by itself."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from prototxt_gen.common.errors import UnsupportedError, nearest
from prototxt_gen.ir import Layer
from prototxt_gen.layers.base import REGISTRY, LayerType


@cache
def _load_rooms() -> None:
    for family in (found.name for found in iter_modules(__path__) if found.ispkg):
        package = import_module(f"{__name__}.{family}")
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            if not module.name.rpartition(".")[2].startswith("_"):
                import_module(module.name)


def every() -> dict[str, LayerType]:
    """Return all known layer types by name."""
    _load_rooms()
    return REGISTRY


def find(type_: str) -> LayerType | None:
    """Return the room of a type, or None where the type is not known."""
    return every().get(type_)


def room(layer: Layer) -> LayerType:
    """Return the room of the layer's type; UnsupportedError where there is none."""
    found = find(layer.type)
    if found is None:
        hint = nearest(layer.type, every())
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): the type is not known{hint}")
    return found.of(layer)
