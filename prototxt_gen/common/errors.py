"""The exceptions of this toolkit.

PrototxtGenError            base class; the command line prints its message and exits with code 1
├── PrototxtError           a text is not a valid prototxt
├── NetError                a net is wrong: number of bottoms, shapes, names, phases
│   └── UnsupportedError    a net is right, but has something that this toolkit does not support
├── WeightsError            a .caffemodel or .h5 is damaged, or does not match its net
└── RuntimeMissingError     a package or program is not installed
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from functools import lru_cache


class PrototxtGenError(Exception):
    """Base class. The message is one sentence for the user, which names the file and the layer."""


class PrototxtError(PrototxtGenError):
    """A text that cannot be parsed. `line` counts from 1; 0 if the error has no line."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class NetError(PrototxtGenError):
    """A net that Caffe would refuse."""


class UnsupportedError(NetError):
    """A net that Caffe accepts, but that this toolkit cannot process with exactly the same result."""


class WeightsError(PrototxtGenError):
    """Weights that are damaged, or that do not match their net."""


class RuntimeMissingError(PrototxtGenError):
    """A package or program that is not installed; the message says how to install it."""


MAX_NAME_LENGTH = 100
"""Longest name for which similar names are searched, since a comparison takes quadratic time."""


MAX_CACHED_NAMES = 1000
"""Largest set of known names for which an index is cached; larger sets are searched without one."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` with the known name most similar to `name`, or "" if none is similar."""
    names = tuple(known)
    if len(name) > MAX_NAME_LENGTH:
        return ""
    return _cached_hint(name, names) if len(names) <= MAX_CACHED_NAMES else _hint(name, names)


@lru_cache(maxsize=1 << 17)  # a file of an unknown fork has many equal unknown names
def _cached_hint(name: str, known: tuple[str, ...]) -> str:
    return _hint(name, _most_similar(name, known))


def _hint(name: str, known: Sequence[str]) -> str:
    matches = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _most_similar(name: str, known: tuple[str, ...]) -> list[str]:
    """Return the name with the most common pairs of letters (frequent pairs excluded) and a similar length, if any."""
    index = _names_by_pair(known)
    counts: dict[str, int] = {}
    for pair in _letter_pairs(name):
        for other in index.get(pair, ()):
            counts[other] = counts.get(other, 0) + 1
    return [max(counts, key=lambda other: (counts[other], -abs(len(other) - len(name))))] if counts else []


@lru_cache(maxsize=64)
def _names_by_pair(known: tuple[str, ...]) -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for name in known:
        for pair in _letter_pairs(name):
            index.setdefault(pair, []).append(name)
    return {pair: names for pair, names in index.items() if len(names) < max(10, len(known) // 4)}


def _letter_pairs(name: str) -> set[str]:
    marked = f" {name.lower()} "
    return {marked[i : i + 2] for i in range(len(marked) - 1)}


def one_of(option: str, value: str, known: Collection[str]) -> None:
    """Raise NetError unless the value of an option is one of the known values."""
    if value not in known:
        raise NetError(f"{option} must be one of {', '.join(known)}, not {value!r}{nearest(value, known)}")


def layer_error(name: str, type_: str, problem: str) -> NetError:
    """Return a NetError with the text `layer 'ip1' (InnerProduct): problem`, the form of all errors about layers."""
    return NetError(f"layer {name!r} ({type_}): {problem}")
