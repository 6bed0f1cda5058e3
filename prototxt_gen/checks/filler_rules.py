"""Rules for the types of fillers."""

from __future__ import annotations

from collections.abc import Iterator

from prototxt_gen.checks.problem import ERROR, WARNING, NetFile, Problem, layer_problem
from prototxt_gen.common.errors import nearest
from prototxt_gen.common.misspellings import misspelt_field
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message

FILLER_TYPES = ("constant", "gaussian", "positive_unitball", "uniform", "xavier", "msra", "bilinear")
"""Source: include/caffe/filler.hpp GetFiller."""


def unknown_fillers(file: NetFile) -> Iterator[Problem]:
    """Yield a problem for each filler of an unknown type: a fork's perhaps, but an error if it is misspelt."""
    for layer in file.net.layers:
        for path, filler in _fillers(layer.params):
            if filler.type not in FILLER_TYPES:
                meant = misspelt_field(filler.type, FILLER_TYPES)
                hint = f"; did you mean {meant!r}?" if meant else nearest(filler.type, FILLER_TYPES)
                message = f"{path}: there is no filler {filler.type!r}{hint}"
                yield layer_problem(ERROR if meant else WARNING, "unknown-filler", layer, message)


def _fillers(message: Message, path: str = "") -> Iterator[tuple[str, FillerParameter]]:
    """Yield (dotted path, filler) of all fillers in a message."""
    for name, value in message.set_fields():
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, FillerParameter):
                yield path + name, inner
            elif isinstance(inner, Message):
                yield from _fillers(inner, f"{path}{name}.")


FILLER_RULES = (unknown_fillers,)
