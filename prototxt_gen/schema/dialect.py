"""Dialects: the schema of each fork of Caffe, and the meaning of its BN's fourth blob.

Text names its fields, so one schema with the fields of all forks reads every fork's text. Binary files carry field
numbers, and forks use the same number for different fields. The messages of the layer types are the common schema.
Which of their fields a fork has, and under which number, is in the fork's table in `forks/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from prototxt_gen.common.errors import PrototxtGenError, nearest
from prototxt_gen.schema.message import Field, Message

_TABLES = Path(__file__).parent / "forks"


class Place(NamedTuple):
    """Where a fork keeps a field: its number, and the fork's name for the message it holds, or an empty string."""

    number: int
    message: str = ""


Table = Mapping[str, Mapping[str, Place]]
"""The fields of a fork's messages: `{"PoolingParameter": {"pool": Place(1)}}`."""


@dataclass(frozen=True, eq=False)
class Dialect:
    """One fork. Its table says how its caffe.proto differs from that of the dialect `base`.

    `bn_statistic` is what the fourth blob of its BN holds: "inverse_std", "variance", or "" where it has no such BN or
    where the engine decides.
    """

    name: str
    source: str
    base: str = "bvlc"
    bn_statistic: str = ""

    @cached_property
    def table(self) -> Table:
        """All fields of all messages that a net or a solver may hold."""
        made = {} if self.name == self.base else {m: dict(fields) for m, fields in DIALECTS[self.base].table.items()}
        for message, entries in _entries(self.name):
            fields = made.setdefault(message, {})
            for entry in entries:
                name, _, place = entry.partition("=")
                number, _, inner = place.partition(":")
                if number == "-":
                    del fields[name]
                else:
                    fields[name] = Place(int(number), inner)
        return made

    def number(self, field_name: str) -> int | None:
        """Return the number of a LayerParameter field in this fork, or None where the fork does not have it."""
        found = self.table["LayerParameter"].get(field_name)
        return found.number if found else None

    def places(self, kind: type[Message], message: str) -> Iterator[tuple[Field[object], Place]]:
        """Yield the fields of a message of ours that the fork has in its own `message`, and where."""
        fields = self.table.get(message, {})
        for name, known in kind.fields.items():
            found = fields.get(name)
            if found is not None and bool(found.message) == (known.message is not None):
                yield known, found

    def unknown_fields(self, message: Message, theirs: str, path: str = "") -> Iterator[str]:
        """Yield the dotted path of each field that `message` sets and the fork's message `theirs` does not have.

        A field that no schema knows is not among them; `Message.walk_extras` yields those.
        """
        has = {known.name: place for known, place in self.places(type(message), theirs)}
        for name, value in message.set_fields():
            if name not in has:
                yield path + name
                continue
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, Message):
                    yield from self.unknown_fields(inner, has[name].message, f"{path}{name}.")


def _entries(dialect: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each message of a fork's table with its entries; a line that begins with a space goes on with the last."""
    lines = (_TABLES / f"{dialect}.txt").read_text(encoding="ascii").replace("\n  ", " ").splitlines()
    for line in lines:
        if not line.startswith("#"):
            message, *entries = line.split()
            yield message, entries


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("bvlc", "BVLC/caffe"),
        Dialect("ssd", "weiliu89/caffe, branch ssd"),
        Dialect("buptwangfei", "buptwangfei/caffe", bn_statistic="inverse_std"),
        Dialect("happynear", "happynear/caffe-windows"),
        Dialect("yjxiong", "yjxiong/caffe", bn_statistic="variance"),
        Dialect("pspnet", "hszhao/PSPNet", bn_statistic="variance"),
        Dialect("brocolli", "brocolli-caffe 9.0.2", "ssd", "inverse_std"),
        Dialect("prototxt-gen", "the Caffe that `prototxt-gen caffe install` builds", "brocolli", "inverse_std"),
    )
}


def dialect(name: str) -> Dialect:
    """Return a dialect by name."""
    if name not in DIALECTS:
        hint = nearest(name, DIALECTS)
        raise PrototxtGenError(f"there is no dialect {name!r}; there are {', '.join(DIALECTS)}{hint}")
    return DIALECTS[name]
