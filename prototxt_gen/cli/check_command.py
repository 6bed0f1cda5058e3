"""`prototxt-gen check`: everything that is wrong with a net or a solver, at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.output import echo_json
from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from prototxt_gen.checks import Problem
    from prototxt_gen.ir import Net, Shape


@click.command()
@options.net_argument
@click.option("--strict", is_flag=True, help="Fields and layer types that nothing here knows are errors.")
@options.phase_of("both, where the net has both")
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
    """Say everything that is wrong with NET, or with a solver and its nets. Exit 0 without errors, else 1."""
    from prototxt_gen import checks
    from prototxt_gen.ir import Net

    def given(one: Net) -> Mapping[str, Shape]:
        return options.given_shapes(one, size, shapes)

    try:
        tree, read = options.read_any(net)
    except PrototxtError as error:
        found = [checks.broken(error, str(net))]
    else:
        if isinstance(read, Net):
            runs = checks.runs_of(read, phase, stages, level)
            found = checks.check_net(read, tree, runs, strict=strict, given=given)
        else:
            found = checks.check_solver(read, tree, strict=strict, given=given)
    echo_json([asdict(one) | {"text": str(one)} for one in found]) if as_json else _echo(net, found)
    context.exit(any(one.severity == checks.ERROR for one in found))


def _echo(path: Path, found: Sequence[Problem]) -> None:
    """Print each problem once, with the number of layers it is the same for."""
    from prototxt_gen.checks import NOTE

    alike: dict[tuple[str, ...], list[Problem]] = {}
    for one in found:
        phase = "" if one.severity == NOTE else one.phase
        alike.setdefault((one.severity, one.code, one.type, one.message, phase, one.source), []).append(one)
    for same in alike.values():
        others = f" (and {len(same) - 1:,} more like it)" if len(same) > 1 else ""
        click.echo(f"{same[0].severity}: {_place(path, same[0])}{safe(str(same[0]))}{others}")
    counts = Counter(one.severity for one in found)
    click.echo(f"{safe(str(path))}: {_count(counts['error'], 'error')}, {_count(counts['warning'], 'warning')}")


def _place(path: Path, problem: Problem) -> str:
    return f"{safe(problem.source)}: " if problem.source not in ("", str(path)) else ""


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
