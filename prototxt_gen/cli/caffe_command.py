"""`prototxt-gen caffe`: build and install real Caffe, and show which one is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Group
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.renamed_options import renamed_option

if TYPE_CHECKING:
    from prototxt_gen.real_caffe import Status

_python = click.option(
    "--python", type=options.FILE, default=sys.executable, show_default="this Python", help="Python interpreter."
)


@click.group(cls=Group, examples=["prototxt-gen caffe install", "prototxt-gen caffe status"])
def caffe() -> None:
    """Build and install real Caffe 1.0 (pycaffe), and show which one is installed."""


@caffe.command(
    examples=["prototxt-gen caffe install --apt", "prototxt-gen caffe install --python venv/bin/python --rebuild"]
)
@_python
@click.option("--apt", is_flag=True, help="Install missing system packages with apt-get.")
@click.option("--rebuild", is_flag=True, help="Build again, even if the cache has a wheel for this Python.")
@renamed_option("--force", "--rebuild", is_flag=True)
def install(python: Path, apt: bool, rebuild: bool) -> None:
    """Build Caffe, install it and test it.

    The first build takes minutes. The wheel is cached, so that later installations take seconds.
    """
    from prototxt_gen import real_caffe

    click.echo(real_caffe.install(python, apt=apt, force=rebuild))


@caffe.command(examples=["prototxt-gen caffe status", "prototxt-gen caffe status --json"])
@_python
@options.as_json
@click.pass_context
def status(context: click.Context, python: Path, as_json: bool) -> None:
    """Show version, solvers, features and layer types of the installed Caffe.

    The exit code is 1 if there is none, or if it does not load.
    """
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
    yield f"wheel: {found.wheel or 'not built by prototxt-gen, so its features are not known'}"
    yield f"solvers: {', '.join(name.removesuffix('Solver') for name in found.solvers)}"
    for name, has_it in found.features.items():
        yield f"{name}: {'yes' if has_it else 'no'}"
    yield f"{len(found.layers)} layer types: {', '.join(found.layers)}"
