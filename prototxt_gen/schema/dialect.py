"""Dialects: the field numbers of each fork of Caffe, and the meaning of the fourth blob of its BN.

In text, fields have names, so one schema with the fields of all forks can read the text of every fork. Binary files
have field numbers, and forks use the same number for different fields. The message classes of the layer types are the
common schema. The tables in `forks/` give the fields that each fork has, with their numbers.
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


class ForkField(NamedTuple):
    """A field in a fork: its number, and the fork's name of its message type ("" for scalars)."""

    number: int
    message: str = ""


Table = Mapping[str, Mapping[str, ForkField]]
"""The fields of a fork's messages: `{"PoolingParameter": {"pool": Place(1)}}`."""


@dataclass(frozen=True, eq=False)
class Dialect:
    """One fork of Caffe. Its table lists the differences of its caffe.proto from that of the dialect `base`.

    `bn_statistic` is the content of the fourth blob of its BN: "inverse_std", "variance", or "" if the fork has no such
    BN, or if the content depends on the engine.
    """

    name: str
    source: str
    base: str = "bvlc"
    bn_statistic: str = ""

    @cached_property
    def table(self) -> Table:
        """The fields of all messages of nets and solvers in this fork."""
        table = {} if self.name == self.base else {m: dict(fields) for m, fields in DIALECTS[self.base].table.items()}
        for message, entries in _entries(self.name):
            fields = table.setdefault(message, {})
            for entry in entries:
                name, _, place = entry.partition("=")
                number, _, inner = place.partition(":")
                if number == "-":
                    del fields[name]
                else:
                    fields[name] = ForkField(int(number), inner)
        return table

    def number(self, field_name: str) -> int | None:
        """Return the number of a LayerParameter field in this fork, or None if the fork does not have it."""
        entry = self.table["LayerParameter"].get(field_name)
        return entry.number if entry else None

    def numbered_fields(self, kind: type[Message], message: str) -> Iterator[tuple[Field[object], ForkField]]:
        """Yield the fields of a message class that the fork has in its message named `message`, with their entries."""
        fields = self.table.get(message, {})
        for name, known in kind.fields.items():
            entry = fields.get(name)
            if entry is not None and bool(entry.message) == (known.message is not None):
                yield known, entry

    def missing_fields(self, message: Message, fork_message: str, path: str = "") -> Iterator[str]:
        """Yield the dotted path of each field that `message` sets and that the fork's message does not have.

        Extras, which are fields unknown to all forks, are left out; see `Message.walk_extras`.
        """
        has = {known.name: place for known, place in self.numbered_fields(type(message), fork_message)}
        for name, value in message.set_fields():
            if name not in has:
                yield path + name
                continue
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, Message):
                    yield from self.missing_fields(inner, has[name].message, f"{path}{name}.")


def _entries(dialect: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the messages of a fork's table with their entries; a line that begins with spaces is a continuation."""
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


def find_dialect(name: str) -> Dialect:
    """Return the dialect of this name. Raises PrototxtGenError if there is none."""
    if name not in DIALECTS:
        hint = nearest(name, DIALECTS)
        raise PrototxtGenError(f"unknown dialect {name!r}; possible values are {', '.join(DIALECTS)}{hint}")
    return DIALECTS[name]
