"""`prototxt-gen summary`: shapes, parameters, MACs and memory of a net, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.read_net import net_in_phase, phase_or_default, read_net_or_solver, shapes_from_options
from prototxt_gen.cli.table import echo_pairs, echo_table
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from prototxt_gen.analysis import Analysis, Row
    from prototxt_gen.ir import Net
    from prototxt_gen.net.solver import Solver

COLUMNS = ("layer", "type", "output", "parameters", "MACs", "activations")
NUMBERS = frozenset({"parameters", "MACs", "activations"})


@click.command(
    cls=Command,
    examples=[
        "prototxt-gen summary deploy.prototxt",
        "prototxt-gen summary net.prototxt --phase TRAIN --input-size 227",
    ],
)
@options.net_argument
@options.phase
@options.stage
@options.level
@options.input_size
@options.shape
@options.as_json
def summary(
    net: Path,
    phase: str | None,
    stages: tuple[str, ...],
    level: int,
    size: str | None,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print shapes, parameters, MACs (multiply-adds) and memory of each layer of NET.

    For a solver, print its fields, and the same for its nets.
    """
    from prototxt_gen.analysis import analyse
    from prototxt_gen.ir import Net

    def analysed(one: Net) -> Analysis:
        return analyse(one, shapes_from_options(one, size, shapes))

    _, read = read_net_or_solver(net)
    if isinstance(read, Net):
        phase = phase_or_default(read, phase)
        done = analysed(net_in_phase(read, phase, stages, level))
        echo_json({"phase": phase} | _as_data(done)) if as_json else _echo(done, f"phase {phase}")
    else:
        _echo_files_not_used(read)
        nets = [(where, analysed(one) if not isinstance(one, str) else one) for where, one in _nets(read, phase)]
        _echo_solver_json(read, nets) if as_json else _echo_solver(read, nets)


def _echo_files_not_used(solver: Solver) -> None:
    """Print a warning for each file of the solver that exists in the working folder and beside the solver."""
    from prototxt_gen.checks.problem import SolverFile
    from prototxt_gen.checks.solver_rules import check_files

    for problem in check_files(SolverFile(solver)):
        if problem.code == "two-files":
            click.echo(safe(f"warning: {problem}"), err=True)


def _nets(solver: Solver, phase: str | None) -> Iterator[tuple[str, Net | str]]:
    """Yield the solver's nets of the phase, or of both; in place of a net that cannot be read, its error."""
    try:
        if phase != "TEST":
            yield "train net", solver.read_train_net()
    except PrototxtGenError as error:
        yield "train net", str(error)
    try:
        if phase != "TRAIN":
            yield from (("test net", one) for one in solver.read_test_nets())
    except PrototxtGenError as error:
        yield "test net", str(error)


def _shapes_text(shapes: tuple[tuple[int, ...] | None, ...]) -> str:
    from prototxt_gen.ir import show

    return ", ".join(map(show, shapes))


def bytes_text(count: int) -> str:
    """Return a number of bytes with its unit, such as `1.5 MiB`."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"


def _cells(row: Row) -> tuple[str, ...]:
    layer, known = row.layer, row.known
    return (
        safe(layer.name),
        safe(layer.type),
        _shapes_text(row.tops),
        f"{row.parameters:,}" if known else "?",
        f"{row.macs:,}" if row.macs is not None else "?",
        bytes_text(row.activation_bytes) if None not in row.tops else "?",
    )


def _input_cells(analysis: Analysis) -> Iterator[tuple[str, ...]]:
    import math

    for value in analysis.net.inputs:
        shape = analysis.shapes.get(value)
        size = bytes_text(4 * math.prod(shape)) if shape is not None else "?"
        yield (safe(value.blob), "(input)", _shapes_text((shape,)), "0", "0", size)


def _echo(analysis: Analysis, role: str) -> None:
    net, least = analysis.net, "" if analysis.complete else "at least "
    name = safe(net.name) or "a net without a name"
    click.echo(f"{name}, {safe(net.source)}, {role}: {len(net.layers):,} layers\n")
    rows = [*_input_cells(analysis), *map(_cells, analysis.rows)]
    echo_table(COLUMNS, rows, right=NUMBERS)
    click.echo(f"\nparameters   {least}{analysis.parameters:,}")
    click.echo(f"MACs         {least}{analysis.macs:,}, one forward pass of the whole batch")
    click.echo(f"activations  {least}{bytes_text(analysis.activation_bytes)}, all blobs as float32")
    for line in _causes(analysis):
        click.echo(line)


def _causes(analysis: Analysis) -> Iterator[str]:
    """Yield one line for each reason why layers have unknown shapes, with the number of those layers."""
    from prototxt_gen.analysis.unknown_shapes import root_causes

    causes = root_causes(analysis)
    if causes:
        unknown = sum(not row.known for row in analysis.rows)
        yield f"\n{unknown:,} of {len(analysis.rows):,} layers are not known, because:"
    for cause in causes:
        first = safe(str(cause.rows[0].error)) if cause.rows else cause.reason
        others = f", and {len(cause.rows) - 1:,} like it" if len(cause.rows) > 1 else ""
        waiting = f"; {cause.waiting:,} layers wait for it" if cause.waiting else ""
        yield f"  {first}{others}{waiting}"


def _as_data(analysis: Analysis) -> dict[str, Any]:
    net = analysis.net
    return {
        "name": net.name,
        "source": net.source,
        "inputs": [{"blob": v.blob, "shape": analysis.shapes.get(v)} for v in net.inputs],
        "layers": [_row_data(row) for row in analysis.rows],
        "complete": analysis.complete,
        "parameters": analysis.parameters,
        "macs": analysis.macs,
        "activation_bytes": analysis.activation_bytes,
    }


def _row_data(row: Row) -> dict[str, Any]:
    layer = row.layer
    return {
        "name": layer.name,
        "type": layer.type,
        "line": layer.line,
        "bottoms": [value.blob for value in layer.bottoms],
        "tops": [{"blob": v.blob, "shape": s} for v, s in zip(layer.tops, row.tops, strict=True)],
        "parameters": row.parameters if row.known else None,
        "macs": row.macs,
        "activation_bytes": row.activation_bytes if None not in row.tops else None,
        "error": str(row.error) if row.error is not None else None,
        "blocked": row.blocked,
    }


def _solver_fields(solver: Solver) -> dict[str, Any]:
    """Return the fields that the solver sets; messages as prototxt text."""
    from prototxt_gen.schema.message import Message
    from prototxt_gen.text import format_fields

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(one) for one in value]
        return format_fields(value.to_text()).replace("\n", " ").strip() if isinstance(value, Message) else value

    return {name: plain(value) for name, value in solver.params.set_fields()}


def _echo_solver_json(solver: Solver, nets: list[tuple[str, Analysis | str]]) -> None:
    listed = [{"role": role, **({"error": a} if isinstance(a, str) else _as_data(a))} for role, a in nets]
    echo_json({"source": solver.source, "type": solver.type, "solver": _solver_fields(solver), "nets": listed})


def _echo_solver(solver: Solver, nets: list[tuple[str, Analysis | str]]) -> None:
    click.echo(f"{safe(solver.source)}: a solver, {safe(solver.type)}\n")
    echo_pairs([*_field_texts(solver), *_unknown_field_texts(solver)])
    for role, analysis in nets:
        click.echo()
        click.echo(f"{role}: {safe(analysis)}") if isinstance(analysis, str) else _echo(analysis, role)


def _field_texts(solver: Solver) -> Iterator[tuple[str, str]]:
    for name, value in _solver_fields(solver).items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield name, safe(text.lower() if isinstance(value, bool) else text)


def _unknown_field_texts(solver: Solver) -> Iterator[tuple[str, str]]:
    return ((safe(extra.name), f"not understood: {safe(extra.reason)}") for extra in solver.params.extras)
