"""A tree of PyTorch modules that follows the slash-separated names of layers.

Importing this module imports torch, so import it inside the function that needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from keyword import iskeyword

from torch import nn


def add_module_at_path(root: nn.Module, layer_name: str, module: nn.Module) -> str:
    """Add a module to the tree under its slash-separated layer name and return its dotted path in the tree.

    Where one part of the name is itself a layer (`conv1` and `conv1/bn`), the remaining parts are joined by
    underscores: `conv1_bn`.
    """
    parts = [attribute_name(part) for part in layer_name.split("/")]
    parent, path = root, []
    for index, part in enumerate(parts[:-1]):
        existing = parent._modules.get(part)
        if existing is not None and not _is_scope(existing):
            parts[index:] = ["_".join(parts[index:])]
            break
        name = next(n for n in _with_numbers(part) if _is_scope(parent._modules.get(n)) or n not in dir(parent))
        if name not in parent._modules:
            parent.add_module(name, nn.Module())
        parent = parent.get_submodule(name)
        path.append(name)
    leaf = _unused_name(parent, parts[-1])
    parent.add_module(leaf, module)
    return ".".join([*path, leaf])


def attribute_name(part: str) -> str:
    """Return one part of a layer name as a valid Python attribute name."""
    name = "".join(c if f"_{c}".isidentifier() else "_" for c in part) or "_"
    name = name if name.isidentifier() else f"_{name}"
    name = f"_{name.lstrip('_')}" if name.startswith("__") else name  # a class body would mangle two underscores
    return f"{name}_" if iskeyword(name) else name


def _unused_name(parent: nn.Module, name: str) -> str:
    taken = dir(parent)
    return next(n for n in _with_numbers(name) if n not in taken)


def _with_numbers(name: str) -> Iterator[str]:
    """Yield the name, then name_2, name_3, and so on."""
    yield name
    yield from (f"{name}_{number}" for number in count(2))


def _is_scope(module: nn.Module | None) -> bool:
    """Whether a module only groups other modules and is not a layer."""
    return type(module) is nn.Module
