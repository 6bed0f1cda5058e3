"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli.output import echo_json as echo_json
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.ir import Net, Shape

if TYPE_CHECKING:
    from prototxt_gen.net.solver import Solver
    from prototxt_gen.net.upgrade import Tree

FILE = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)

force = click.option("--force", is_flag=True, help="Overwrite files that are there already.")
output = click.option("-o", "--output", type=FILE, required=True, help="The file to write.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
net_argument = click.argument("net", type=FILE)


def phase_of(default: str) -> Callable[[Any], Any]:
    """Return the option --phase; `default` says what holds without it."""
    choice = click.Choice(["TRAIN", "TEST"], case_sensitive=False)
    return click.option("--phase", type=choice, help=f"The phase; {default}, unless told.")


phase = phase_of("TEST, or TRAIN where the file has no other")
stage = click.option("--stage", "stages", multiple=True, help="A stage of the net's state; may be given again.")
level = click.option("--level", type=int, default=0, help="The level of the net's state.")
input_size = click.option(
    "--input-size", "size", metavar="SIZE", help="Size of the image input: 320, 240x320, or 1x3x224x224."
)
shape = click.option(
    "--shape", "shapes", multiple=True, metavar="BLOB=1x3x224x224", help="The shape of an input; may be given again."
)


def all_of(options: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Return one decorator for several options."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _means(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        return tuple(float(part) for part in value.split(",")) if value.strip() else ()
    except ValueError:
        raise click.BadParameter(f"{value!r} is not numbers with commas between them") from None


data = all_of(
    [
        click.option("--data", "kind", help="lmdb, hdf5, image-list, python (with augmentation) or input."),
        click.option("--train-data", "train", help="Source of the training images."),
        click.option("--test-data", "test", help="Source of the test images."),
        click.option("--batch", type=click.IntRange(min=1), help="Images per training step and GPU."),
        click.option("--test-batch", type=click.IntRange(min=1), help="Images per test step."),
        click.option("--crop", type=click.IntRange(min=1), help="Height and width of the training crop."),
        click.option("--resize", type=click.IntRange(min=1), help="Size of images before the crop, for image-list."),
        click.option("--mirror/--no-mirror", default=None, help="Mirror training images at random."),
        click.option("--mean", callback=_means, metavar="B,G,R", help="Mean to take off, per channel or one for all."),
        click.option("--scale", type=float, help="Factor after the mean is taken off."),
    ]
)
"""How data layers are made; without --data and the others, a command has its own defaults."""


def numbers(text: str, what: str) -> tuple[int, ...]:
    """Return `1x3x224x224` (or with commas) as numbers."""
    try:
        found = tuple(int(part) for part in text.replace("×", "x").replace(",", "x").split("x"))
    except ValueError:
        raise PrototxtGenError(f"{what}: {text!r} is not whole numbers with x between them") from None
    if min(found) < 1:
        raise PrototxtGenError(f"{what}: {text!r}: every number must be at least 1")
    return found


def given_shapes(net: Net, size: str | None, shapes: tuple[str, ...]) -> Mapping[str, Shape]:
    """Return what --input-size and --shape say, as shapes by blob."""
    from prototxt_gen.analysis import resized

    found: dict[str, Shape] = dict(resized(net, numbers(size, "--input-size"))) if size else {}
    for text in shapes:
        blob, equals, dims = text.partition("=")
        if not equals:
            raise PrototxtGenError(f"--shape {text!r}: write BLOB=1x3x224x224")
        if blob not in {value.blob for value in net.values()}:
            raise PrototxtGenError(f"--shape {text!r}: the net has no blob {blob!r}")
        found[blob] = numbers(dims, "--shape")
    return found


def chosen_phase(net: Net, phase: str | None) -> str:
    """Return the phase asked for; else TEST, but TRAIN for a file that is meant for TRAIN alone."""
    from prototxt_gen.net.phase_rules import phases_of

    return phase or phases_of(net)[-1]


def in_phase(net: Net, phase: str | None, stages: tuple[str, ...], level: int) -> Net:
    """Return the net of a phase, see `chosen_phase`; the file's own stages count beside those asked for, its level not.

    Source: src/caffe/net.cpp Net::Net(param_file, phase, level, stages).
    """
    return net.at(chosen_phase(net, phase), (*net.params.state.stage, *stages), level)


def read_whole(path: Path) -> Net:
    """Return the net of a prototxt with the layers of all phases; a solver is an error."""
    from prototxt_gen.common.errors import PrototxtError

    _, net = read_any(path)
    if not isinstance(net, Net):
        raise PrototxtError(f"{path}: a solver, not a net; give the net's own file")
    return net


def read_net(path: Path, phase: str | None, stages: tuple[str, ...], level: int) -> Net:
    """Return the net of a prototxt in a phase, see `in_phase`; a solver is an error."""
    return in_phase(read_whole(path), phase, stages, level)


def read_any(path: Path) -> tuple[Tree, Net | Solver]:
    """Return a prototxt as it was parsed, and as the net of all phases or the solver that it is.

    PrototxtError, naming file and line, where it is neither.
    """
    from prototxt_gen.common.errors import PrototxtError
    from prototxt_gen.net.prototxt_reader import net_from_tree, read_text
    from prototxt_gen.net.solver import is_solver, solver_from_tree
    from prototxt_gen.text import parse

    text, source = read_text(path), str(path)
    try:
        tree = parse(text)
        read = solver_from_tree(tree, source) if is_solver(tree) else net_from_tree(tree, source)
    except PrototxtError as error:
        raise PrototxtError(f"{source}: {error}", error.line) from None
    if isinstance(read, Net) and not read.layers and not read.inputs:
        found = ", ".join(dict.fromkeys(field.name for field in tree[:20]))
        raise PrototxtError(f"{source}: neither a net nor a solver; {f'it holds {found}' if found else 'it is empty'}")
    return tree, read
