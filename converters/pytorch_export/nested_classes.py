"""Grouping layers by the slashes in their names, for the nested classes of model.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from converters.pytorch_export.layer_source import LayerSource
from prototxt_gen.runtime.module_tree import attribute_name

ScopePath = tuple[str, ...]
"""The parts of a slash-separated name as Python identifiers."""


@dataclass
class Scope:
    """Layers whose names begin with the same parts. `items`: layers and inner scopes, in the order they run."""

    path: ScopePath
    items: list[LayerSource | Scope] = field(default_factory=list)

    def layers(self) -> list[LayerSource]:
        """Return all layers of the scope and its inner scopes."""
        return [s for item in self.items for s in (item.layers() if isinstance(item, Scope) else [item])]


def group_by_scope(sources: Sequence[LayerSource]) -> Scope:
    """Return the outermost scope.

    Layers form a scope of their own if they are all layers with the beginning of their names, and follow each other.
    """
    scope_paths = {path[:length] for path in map(_module_path, sources) for length in range(1, len(path))}
    positions = {id(source): _position(source, scope_paths) for source in sources}
    return _grouped(sources, (), positions)


def _module_path(source: LayerSource) -> ScopePath:
    return tuple(source.path.split("."))


def _position(source: LayerSource, scope_paths: set[ScopePath]) -> ScopePath:
    """Return the path of a layer in the tree: that of its module, or, without a module, inside a scope of its name."""
    name_path = tuple(attribute_name(part) for part in source.layer.name.split("/"))
    return (*name_path, "") if source.constructor is None and name_path in scope_paths else _module_path(source)


def _grouped(sources: Sequence[LayerSource], path: ScopePath, positions: Mapping[int, ScopePath]) -> Scope:
    scope = Scope(path)
    index = 0
    while index < len(sources):
        inner_path, count = _scope_starting_at(sources, index, path, positions)
        if inner_path is None:
            scope.items.append(sources[index])
        else:
            scope.items.append(_grouped(sources[index : index + count], inner_path, positions))
        index += count
    return scope


def _scope_starting_at(
    sources: Sequence[LayerSource], start: int, path: ScopePath, positions: Mapping[int, ScopePath]
) -> tuple[ScopePath | None, int]:
    """Return the widest scope that begins at `start` and is contiguous, and its number of layers; or None and 1.

    A layer without a module and without a slash in its name, such as a sum, does not interrupt a scope, but is
    included in it.
    """
    position = positions[id(sources[start])]
    for length in range(len(path) + 1, len(position)):
        prefix = position[:length]
        inside = [index for index, source in enumerate(sources) if positions[id(source)][:length] == prefix]
        run = sources[start : inside[-1] + 1]
        included = [source for source in run if source.constructor is None and len(positions[id(source)]) == 1]
        if len(inside) > 1 and inside[0] == start and len(inside) + len(included) == len(run):
            return prefix, len(run)
    return None, 1
