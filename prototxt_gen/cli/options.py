"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from prototxt_gen.errors import PrototxtGenError
from prototxt_gen.ir import Net, Shape

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

force = click.option("--force", is_flag=True, help="Overwrite files that are there already.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
net_argument = click.argument("net", type=FILE)
phase = click.option(
    "--phase", type=click.Choice(["TRAIN", "TEST"], case_sensitive=False), help="The phase; TEST unless told."
)
stage = click.option("--stage", "stages", multiple=True, help="A stage of the net's state; may be given again.")
level = click.option("--level", type=int, default=0, help="The level of the net's state.")
input_size = click.option(
    "--input-size", "size", metavar="SIZE", help="Size of the image input: 320, 240x320, or 1x3x224x224."
)
shape = click.option(
    "--shape", "shapes", multiple=True, metavar="BLOB=1x3x224x224", help="The shape of an input; may be given again."
)


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


def read_net(path: Path, phase: str | None, stages: tuple[str, ...], level: int) -> Net:
    """Return the net of a prototxt in a phase: the one asked for, else the file's own state, else TEST."""
    from prototxt_gen.reader import read

    net = read(path)
    state = net.params.state
    return net.at(phase or state.phase, stages or state.stage, level or state.level)


def echo_json(value: Any) -> None:
    """Print JSON on stdout."""
    import json

    click.echo(json.dumps(value, indent=2))
