"""Layers sorted by the slash-separated names they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from converters.pytorch_export.layer_source import Piece
from prototxt_gen.runtime.module_tree import attribute_name

Path = tuple[str, ...]


@dataclass
class Scope:
    """Layers whose paths begin alike. `items` are pieces and inner scopes, in the order they run."""

    path: Path
    items: list[Piece | Scope] = field(default_factory=list)

    def pieces(self) -> list[Piece]:
        return [p for item in self.items for p in (item.pieces() if isinstance(item, Scope) else [item])]


def scopes(pieces: Sequence[Piece]) -> Scope:
    """Sort pieces into scopes: layers that follow one another, all that there are of a name; others stay above."""
    above = {path[:length] for path in map(_own_path, pieces) for length in range(1, len(path))}
    places = {id(one): _place(one, above) for one in pieces}
    return _sorted(pieces, (), places)


def _own_path(one: Piece) -> Path:
    return tuple(one.path.split("."))


def _place(one: Piece, above: set[Path]) -> Path:
    """Return where a piece belongs: at its path, or, without a module and called as a block, inside that block."""
    named = tuple(attribute_name(part) for part in one.layer.name.split("/"))
    return (*named, "") if one.made is None and named in above else _own_path(one)


def _sorted(pieces: Sequence[Piece], path: Path, places: Mapping[int, Path]) -> Scope:
    scope = Scope(path)
    index = 0
    while index < len(pieces):
        head, run = _whole_run(pieces, index, path, places)
        if head is None:
            scope.items.append(pieces[index])
        else:
            scope.items.append(_sorted(pieces[index : index + run], head, places))
        index += run
    return scope


def _whole_run(pieces: Sequence[Piece], start: int, path: Path, places: Mapping[int, Path]) -> tuple[Path | None, int]:
    """Return the widest scope that begins here and is not interrupted, and how many pieces it has; or None and 1.

    A piece of no scope that needs no module, such as a sum under a name of its own, interrupts none: it goes inside.
    """
    place = places[id(pieces[start])]
    for length in range(len(path) + 1, len(place)):
        head = place[:length]
        inside = [index for index, one in enumerate(pieces) if places[id(one)][:length] == head]
        run = pieces[start : inside[-1] + 1]
        free = [one for one in run if one.made is None and len(places[id(one)]) == 1]
        if len(inside) > 1 and inside[0] == start and len(inside) + len(free) == len(run):
            return head, len(run)
    return None, 1
