"""What goes to the terminal: text that is safe to print whatever a file put into its names, and JSON."""

from __future__ import annotations

from typing import Any

import click


def safe(text: str) -> str:
    """Return the text with what no terminal should get (control characters, halves of characters) as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def safe_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(safe, text.split("\n")))


def echo_json(value: Any) -> None:
    """Print JSON on stdout, in ASCII."""
    import json

    click.echo(json.dumps(value, indent=2))
