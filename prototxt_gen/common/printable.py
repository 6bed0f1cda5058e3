"""Text that is safe to show, whatever a file put into its names."""

from __future__ import annotations


def safe(text: str) -> str:
    """Return the text with what no terminal should get (control characters, halves of characters) as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def safe_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(safe, text.split("\n")))
