"""`prototxt-gen caffe`: build and install real Caffe, and say which Caffe is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.output import echo_json

if TYPE_CHECKING:
    from prototxt_gen.real_caffe import Status

_python = click.option(
    "--python", type=options.FILE, default=sys.executable, show_default="this one", help="The Python it is for."
)


@click.group()
def caffe() -> None:
    """Real Caffe 1.0 for this Python."""


@caffe.command()
@_python
@click.option("--apt", is_flag=True, help="Install the system packages that are missing, by apt-get.")
@click.option("--force", is_flag=True, help="Build and install anew, whatever is in the cache.")
def install(python: Path, apt: bool, force: bool) -> None:
    """Build Caffe, install it and test it: minutes the first time, seconds from the cache."""
    from prototxt_gen import real_caffe

    click.echo(real_caffe.install(python, apt=apt, force=force))


@caffe.command()
@_python
@options.as_json
@click.pass_context
def status(context: click.Context, python: Path, as_json: bool) -> None:
    """Say which Caffe is there: version, solvers, features, layer types. Exit 1 where there is none that loads."""
    from prototxt_gen import real_caffe

    found = real_caffe.status(python)
    if as_json:
        echo_json(asdict(found) | {"installed": found.installed})
    else:
        for line in _lines(found):
            click.echo(line)
    context.exit(0 if found.installed else 1)


def _lines(found: Status) -> Iterator[str]:
    if not found.installed:
        yield f"Caffe: {found.problem}; 'prototxt-gen caffe install' builds one"
        return
    yield f"Caffe {found.version} in {found.path}"
    yield f"wheel: {found.wheel or 'not one of ours, so its features are not known'}"
    yield f"solvers: {', '.join(name.removesuffix('Solver') for name in found.solvers)}"
    for name, there in found.features.items():
        yield f"{name}: {'yes' if there else 'no'}"
    yield f"{len(found.layers)} layer types: {', '.join(found.layers)}"
