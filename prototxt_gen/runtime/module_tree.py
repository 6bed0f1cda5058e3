"""Modules in a tree that follows the slash-separated names of layers. It imports torch: import it where needed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from keyword import iskeyword

from torch import nn


def hang(root: nn.Module, name: str, module: nn.Module) -> str:
    """Hang a module into the tree at its slash-separated name; return the dotted path.

    Where a part of the way is a layer itself (`conv1` and `conv1/bn`), the rest is joined to it: `conv1_bn`.
    """
    parts = [identifier(part) for part in name.split("/")]
    place, way = root, []
    for index, part in enumerate(parts[:-1]):
        held = place._modules.get(part)
        if held is not None and not _is_scope(held):
            parts[index:] = ["_".join(parts[index:])]
            break
        name = next(n for n in _numbered(part) if _is_scope(place._modules.get(n)) or n not in dir(place))
        if name not in place._modules:
            place.add_module(name, nn.Module())
        place = place.get_submodule(name)
        way.append(name)
    leaf = _free(place, parts[-1])
    place.add_module(leaf, module)
    return ".".join([*way, leaf])


def identifier(part: str) -> str:
    """Return a name that Python takes as an attribute."""
    made = "".join(c if f"_{c}".isidentifier() else "_" for c in part) or "_"
    made = made if made.isidentifier() else f"_{made}"
    made = f"_{made.lstrip('_')}" if made.startswith("__") else made  # a class would call it by a name of its own
    return f"{made}_" if iskeyword(made) else made


def _free(place: nn.Module, name: str) -> str:
    taken = dir(place)
    return next(n for n in _numbered(name) if n not in taken)


def _numbered(name: str) -> Iterator[str]:
    """Yield the name, then the same with numbers after it."""
    yield name
    yield from (f"{name}_{number}" for number in count(2))


def _is_scope(module: nn.Module | None) -> bool:
    """Whether it is a part of the way only, and no layer."""
    return type(module) is nn.Module
