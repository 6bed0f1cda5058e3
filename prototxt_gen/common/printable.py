"""Escaping of control characters in names from files, for output on a terminal."""

from __future__ import annotations


def safe(text: str) -> str:
    """Return the text with characters that are not printable (control characters, surrogates) as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def safe_lines(text: str) -> str:
    """Return a text of several lines with `safe` applied to each line."""
    return "\n".join(map(safe, text.split("\n")))
