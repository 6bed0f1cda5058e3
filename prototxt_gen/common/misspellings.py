"""Recognises misspelt names: an unknown name that differs from a known one by case, underscores or one edit."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

_SHORTEST_WORD = 3
_SHORTEST_WORD_WITH_ANOTHER_LETTER = 5
"""Shortest words in which one edit counts as a mistake; `kernel_h` and `kernel_w` are different fields."""
_SHORTEST_TYPE = 6


def misspelt_field(name: str, known: Iterable[str]) -> str:
    """Return the known field that `name` is a misspelling of, or "": `num_ouput` means `num_output`.

    The fields of forks are often close to known ones, so only these differences count: case and underscores; or, in one
    of the words between underscores, one missing, additional, wrong or exchanged letter, neither the first letter of
    the word nor a plural s, and no digit.
    """
    return _misspelling(name, tuple(known), _SHORTEST_WORD)


def misspelt_type(name: str, known: Iterable[str]) -> str:
    """Return the known layer type that `name` is a misspelling of, or "": `Convolutoin` means `Convolution`."""
    return _misspelling(name, tuple(known), _SHORTEST_TYPE)


@lru_cache(maxsize=4096)  # a file of an unknown fork has many equal unknown names
def _misspelling(name: str, known: tuple[str, ...], shortest: int) -> str:
    letters = _letters(name)
    same = next((other for other in known if _letters(other) == letters), "")
    return same or next((other for other in known if _is_one_edit_away(name, other, shortest)), "")


def _letters(name: str) -> str:
    return name.replace("_", "").lower()


def _is_one_edit_away(name: str, known: str, shortest: int) -> bool:
    """Whether exactly one word differs, by one edit that counts as a mistake."""
    if abs(len(name) - len(known)) > 1:
        return False
    words, known_words = name.lower().split("_"), known.lower().split("_")
    different = [pair for pair in zip(words, known_words, strict=False) if pair[0] != pair[1]]
    return len(words) == len(known_words) and len(different) == 1 and _is_mistyped(*different[0], shortest)


def _is_mistyped(word: str, known: str, shortest: int) -> bool:
    start = _common_prefix(word, known)
    if start == 0 or len(known) < shortest:
        return False
    end = _common_prefix(word[start:][::-1], known[start:][::-1])
    written, meant = word[start : len(word) - end], known[start : len(known) - end]
    if any(letter.isdigit() for letter in written + meant):
        return False
    if len(written) + len(meant) == 1:
        return end > 0 or written + meant != "s"
    if len(written) == len(meant) == 1:
        return len(known) >= _SHORTEST_WORD_WITH_ANOTHER_LETTER
    return len(written) == len(meant) == 2 and written == meant[::-1]


def _common_prefix(first: str, second: str) -> int:
    """Return the length of the longest common prefix."""
    length = min(len(first), len(second))
    return next((index for index in range(length) if first[index] != second[index]), length)
