"""`prototxt-gen check`: print all errors of a net or a solver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.read_net import read_net_or_solver, shapes_from_options
from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from prototxt_gen.checks import Problem
    from prototxt_gen.ir import Net, Shape


@click.command(
    cls=Command, examples=["prototxt-gen check solver.prototxt", "prototxt-gen check deploy.prototxt --strict"]
)
@options.net_argument
@click.option("--strict", is_flag=True, help="Make unknown fields, layer types and forms of layers errors.")
@options.phase_option("all phases of the net")
@options.stage
@options.level
@options.input_size
@options.shape
@options.as_json
@click.pass_context
def check(
    context: click.Context,
    net: Path,
    strict: bool,
    phase: str | None,
    stages: tuple[str, ...],
    level: int,
    size: str | None,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print all errors and warnings of NET, or of a solver and its nets.

    The exit code is 1 if there are errors, else 0.
    """
    from prototxt_gen import checks
    from prototxt_gen.ir import Net

    def given(one: Net) -> Mapping[str, Shape]:
        return shapes_from_options(one, size, shapes)

    try:
        tree, read = read_net_or_solver(net)
    except PrototxtError as error:
        found = [checks.unreadable_problem(error, str(net))]
    else:
        if isinstance(read, Net):
            runs = checks.intended_modes(read, phase, stages, level)
            found = checks.check_net(read, tree, runs, strict=strict, input_shapes=given)
        else:
            found = checks.check_solver(read, tree, strict=strict, input_shapes=given)
    echo_json([asdict(one) | {"text": str(one)} for one in found]) if as_json else _echo(net, found)
    context.exit(any(one.severity == checks.ERROR for one in found))


def _echo(path: Path, found: Sequence[Problem]) -> None:
    """Print each problem once, with the number of layers that have it."""
    from prototxt_gen.checks.problem_lines import problem_lines

    for line in problem_lines(found, path):
        click.echo(line)
    counts = Counter(one.severity for one in found)
    click.echo(f"{safe(str(path))}: {_count(counts['error'], 'error')}, {_count(counts['warning'], 'warning')}")


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
