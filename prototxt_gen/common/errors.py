"""Every error this toolkit raises on purpose.

PrototxtGenError            one clear sentence; the command line prints it and exits 1
├── PrototxtError           a text is not a prototxt, or not one Caffe could mean
├── NetError                a net is wrong: arity, shapes, names, phases
│   └── UnsupportedError    a net is right, but something in it cannot be done here exactly
├── WeightsError            a .caffemodel or .h5 is damaged, or does not fit its net
└── RuntimeMissingError     a package or program that this needs is not installed
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from functools import lru_cache


class PrototxtGenError(Exception):
    """Base of all: its text is one sentence for the user, naming file and layer where there are any."""


class PrototxtError(PrototxtGenError):
    """A text that cannot be read. `line` counts from 1; 0 where no line is to blame."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class NetError(PrototxtGenError):
    """A net that Caffe would refuse."""


class UnsupportedError(NetError):
    """Something right that this toolkit cannot do exactly, and so refuses to do at all."""


class WeightsError(PrototxtGenError):
    """Weights that are damaged, or that do not fit their net."""


class RuntimeMissingError(PrototxtGenError):
    """A package or program that is not installed; the text says how to install it."""


LONGEST = 100
"""Names longer than this are no slip of the hand; comparing them takes the square of their length."""


MANY = 1000
"""More names than this are a net's own, asked for seldom: no index of them is kept."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known name closest to `name`, or an empty string."""
    names = tuple(known)
    if len(name) > LONGEST:
        return ""
    return _nearest(name, names) if len(names) <= MANY else _hint(name, names)


@lru_cache(maxsize=1 << 17)  # a strange fork's file asks a hundred thousand times, once for each phase and rule
def _nearest(name: str, known: tuple[str, ...]) -> str:
    return _hint(name, _alike(name, known))


def _hint(name: str, known: Sequence[str]) -> str:
    found = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def _alike(name: str, known: tuple[str, ...]) -> list[str]:
    """Return the name, if any, that shares most of the rarer pairs of letters, and is nearest in length."""
    index = _by_pair(known)
    counts: dict[str, int] = {}
    for pair in _pairs(name):
        for other in index.get(pair, ()):
            counts[other] = counts.get(other, 0) + 1
    return [max(counts, key=lambda other: (counts[other], -abs(len(other) - len(name))))] if counts else []


@lru_cache(maxsize=64)
def _by_pair(known: tuple[str, ...]) -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for name in known:
        for pair in _pairs(name):
            index.setdefault(pair, []).append(name)
    return {pair: names for pair, names in index.items() if len(names) < max(10, len(known) // 4)}


def _pairs(name: str) -> set[str]:
    marked = f" {name.lower()} "
    return {marked[i : i + 2] for i in range(len(marked) - 1)}


def one_of(what: str, value: str, known: Collection[str]) -> None:
    """Raise a NetError where an option has a value that is not one of those known."""
    if value not in known:
        raise NetError(f"{what} must be one of {', '.join(known)}, not {value!r}{nearest(value, known)}")


def layer_error(name: str, type_: str, problem: str) -> NetError:
    """The one form of error about a layer: `layer 'ip1' (InnerProduct): problem`."""
    return NetError(f"layer {name!r} ({type_}): {problem}")
