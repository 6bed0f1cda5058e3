"""`prototxt-gen data`: make data sets that Caffe reads, say what they hold, and their mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.progress import bar
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.printable import safe

if TYPE_CHECKING:
    from prototxt_gen.data.info import Info
    from prototxt_gen.data.make import Made

_MOST_SHOWN = 20
_source = options.all_of(
    [
        click.option("--kind", help="What SRC is: folder, list, npz, cifar10, idx, …; found out unless told."),
        click.option("--split", help="A part of a source that has several, such as train or test."),
        click.option("--root", help="Folder before the names in a list; its own unless told."),
    ]
)


@click.group()
def data() -> None:
    """Data sets: LMDB and HDF5 from pictures, lists, .npz, CIFAR and MNIST files."""


def _part(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """Parse `0:0.9`."""
    if value is None:
        return None
    try:
        low, high = (float(number) for number in value.split(":"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not two numbers with : between them") from None
    return low, high


@data.command()
@click.argument("src", type=options.FILE)
@click.option("-o", "--output", "out", type=options.FILE, required=True, help="The folder to make.")
@click.option("--to", type=click.Choice(["lmdb", "hdf5"]), default="lmdb", show_default=True, help="The form.")
@_source
@click.option("--resize", metavar="SIZE", help="Resize all pictures: 32, or 240x320 (height x width).")
@click.option("--shuffle", "shuffle_seed", type=int, metavar="SEED", help="Shuffle, by this seed.")
@click.option("--encoded", type=click.Choice(["png", "jpg"]), help="Store picture files instead of pixels (LMDB).")
@click.option("--gray", is_flag=True, help="One channel.")
@click.option("--bgr", is_flag=True, help="Turn sources that hold RGB (CIFAR, .npz) around.")
@click.option("--part", callback=_part, metavar="FROM:TO", help="Only this part, after shuffling: 0:0.9.")
@click.option("--skip-broken", is_flag=True, help="Leave out pictures that cannot be decoded.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads.")
@options.force
@options.as_json
def make(src: Path, out: Path, as_json: bool, resize: str | None, **given: Any) -> None:
    """Make a data set of SRC, and read it back. Interrupted, it goes on where it stopped when run again."""
    from prototxt_gen.data.make import make

    with bar(f"{out}") as progress:
        made = make(src, out, resize=_size(resize), progress=progress, **given)
    if as_json:
        echo_json(asdict(made) | {"path": str(made.path), "source": str(made.source)})
    else:
        _echo_made(made)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = options.numbers(text, "--resize")
    if len(found) > 2:
        raise PrototxtGenError(f"--resize {text!r}: give one number, or height x width")
    return found[0], found[-1]


def _echo_made(made: Made) -> None:
    click.echo(f"{made.source}: {made.count:,} samples, {_counts(made.shapes)}")
    if made.classes:
        click.echo(f"classes: {safe(_few(list(made.classes)))}")
    for line in made.broken:
        click.echo(f"left out: {safe(line)}", err=True)
    if made.mixed:
        click.echo("sizes differ: the data layer needs a crop_size", err=True)


@data.command()
@click.argument("src", type=options.FILE)
@_source
@options.as_json
def info(src: Path, as_json: bool, **given: Any) -> None:
    """Say what a data set, or a source of one, holds: samples, shapes, labels."""
    from prototxt_gen.data.info import info

    found = _with_bar(info, src, **given)
    if as_json:
        echo_json(asdict(found) | {"path": str(found.path)})
        return
    for line in _info_lines(found):
        click.echo(safe(line))


def _with_bar(function: Callable[..., Any], src: Path, **given: Any) -> Any:
    with bar(str(src)) as progress:
        return function(src, progress=progress, **given)


def _info_lines(found: Info) -> list[str]:
    names = [found.classes[label] if label < len(found.classes) else str(label) for label in found.labels]
    labels = [f"{name} {count:,}" for name, count in zip(names, found.labels.values(), strict=True)]
    return [
        f"{found.path}: {found.kind}, {found.count:,} samples, {found.bytes:,} bytes",
        f"shapes (channels x height x width): {_counts(found.shapes)}",
        f"stored as: {found.dtype}{f', {found.encoded:,} of them picture files' if found.encoded else ''}",
        f"{len(labels)} labels: {_few(labels)}",
    ]


def _counts(shapes: dict[str, int]) -> str:
    return _few([f"{shape} ({count:,})" for shape, count in shapes.items()])


def _few(items: list[str]) -> str:
    more = f" and {len(items) - _MOST_SHOWN} more" if len(items) > _MOST_SHOWN else ""
    return ", ".join(items[:_MOST_SHOWN]) + more


@data.command()
@click.argument("src", type=options.FILE)
@click.option("-o", "--output", "out", type=options.FILE, help="Write the mean of each pixel: a .binaryproto.")
@_source
@options.force
@options.as_json
def mean(src: Path, as_json: bool, **given: Any) -> None:
    """Print the mean of each channel, in the data's order: transform_param's mean_value."""
    from prototxt_gen.data.info import mean

    found = _with_bar(mean, src, **given)
    if as_json:
        echo_json({"count": found.count, "channels": found.channels, "written": found.written and str(found.written)})
        return
    click.echo(" ".join(f"mean_value: {value:.6g}" for value in found.channels))
    if found.written:
        click.echo(str(found.written))
