"""JSON on stdout."""

from __future__ import annotations

from typing import Any

import click


def echo_json(value: Any) -> None:
    """Print a value as indented ASCII JSON."""
    import json

    click.echo(json.dumps(value, indent=2))
