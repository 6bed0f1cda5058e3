"""Results on stdout: JSON, and the names of written files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from prototxt_gen.common.files import STDOUT


def echo_json(value: Any, to_stderr: bool = False) -> None:
    """Print a value as indented ASCII JSON."""
    import json

    click.echo(json.dumps(value, indent=2), err=to_stderr)


def echo_files(paths: Iterable[Path]) -> None:
    """Print the names of written files on stdout, unless a file was written there (`-o -`)."""
    printed = list(paths)
    for path in [] if STDOUT in printed else printed:
        click.echo(path)
