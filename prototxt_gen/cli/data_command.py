"""`prototxt-gen data`: make data sets that Caffe reads, print what they hold, and their mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Group
from prototxt_gen.cli.output import echo_files, echo_json
from prototxt_gen.cli.param_types import fraction, parse_dims
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.files import STDOUT
from prototxt_gen.common.printable import safe
from prototxt_gen.common.progress import progress_bar

if TYPE_CHECKING:
    from prototxt_gen.data.info import Info
    from prototxt_gen.data.make import MakeResult

_MAX_LISTED = 20
"""Longer lists of shapes, labels and classes are cut off."""
_ROOT_DEFAULT = "paths count from the current folder, or from the list's if the first is only there"
_source_options = options.source_options(options.SOURCE_KINDS, _ROOT_DEFAULT)
_data_set_options = options.source_options((*options.STORED_KINDS, *options.SOURCE_KINDS), _ROOT_DEFAULT)


@click.group(
    cls=Group,
    examples=["prototxt-gen data make images/ -o train_lmdb --resize 256x256", "prototxt-gen data mean train_lmdb"],
)
def data() -> None:
    """Make LMDB and HDF5 data sets, print what they hold, and their mean."""


@data.command(
    examples=[
        "prototxt-gen data make images/ -o train_lmdb --resize 256x256 --shuffle 1",
        "prototxt-gen data make cifar-10-batches-bin/ --split test -o test_h5 --to hdf5",
    ]
)
@click.argument("src", type=options.FILE)
@click.option("-o", "--output", type=options.OUTPUT_FOLDER, required=True, help="Output folder.")
@click.option("--to", type=click.Choice(["lmdb", "hdf5"]), default="lmdb", show_default=True,
              help="Format of the data set.")  # fmt: skip
@_source_options
@click.option("--resize", metavar="SIZE", show_default="not resized",
              help="Size of all images: 32, or 240x320 (height x width).")  # fmt: skip
@click.option("--shuffle", "shuffle_seed", type=int, metavar="SEED", show_default="not shuffled",
              help="Shuffle the images with this random seed.")  # fmt: skip
@click.option("--encoded", type=click.Choice(["png", "jpg"]), show_default="pixels",
              help="Store image files of this format in the LMDB instead of pixels.")  # fmt: skip
@click.option("--gray", is_flag=True, help="Convert the images to one channel.")
@click.option("--bgr", is_flag=True,
              help="Store RGB sources (CIFAR, .npz) as BGR, the order of images that Caffe decodes.")  # fmt: skip
@click.option("--part", type=fraction, metavar="FROM:TO", show_default="0:1",
              help="Keep only this part of the images, after shuffling; 0:0.9 is the first nine tenths.")  # fmt: skip
@click.option("--skip-broken", is_flag=True, help="Leave out images that cannot be decoded.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", show_default="one per CPU, at most 8",
              help="Number of threads.")  # fmt: skip
@options.force
@options.as_json
def make(src: Path, output: Path, as_json: bool, resize: str | None, **given: Any) -> None:
    """Make a data set from the images of SRC, and check it by reading it back.

    SRC is a folder with one folder per class, a list file (PATH LABEL), a .npz, or the files of CIFAR or MNIST. If it
    is interrupted, the same command goes on where it stopped.
    """
    from prototxt_gen.data.make import make

    with progress_bar(str(output)) as progress:
        made = make(src, output, resize=_height_and_width(resize), progress=progress, **given)
    if as_json:
        echo_json(asdict(made) | {"path": str(made.path), "source": str(made.source)})
    else:
        _echo_made(made)


def _height_and_width(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    dims = parse_dims(text, "--resize")
    if len(dims) > 2:
        raise PrototxtGenError(f"--resize {text!r}: give one number, or height x width")
    return dims[0], dims[-1]


def _echo_made(made: MakeResult) -> None:
    click.echo(f"{made.source}: {made.count:,} samples, {_counts(made.shapes)}")
    if made.classes:
        click.echo(f"classes: {safe(_cut_off(list(made.classes)))}")
    for line in made.broken:
        click.echo(f"left out: {safe(line)}", err=True)
    if made.mixed:
        click.echo("sizes differ: the data layer needs a crop_size", err=True)


@data.command(
    examples=["prototxt-gen data info train_lmdb", "prototxt-gen data info images/ --kind folder --split test"]
)
@click.argument("src", type=options.FILE)
@_data_set_options
@options.as_json
def info(src: Path, as_json: bool, **given: Any) -> None:
    """Print what a data set holds: number of samples, shapes, labels.

    SRC is an LMDB, an HDF5 file, a list of HDF5 files, or anything that `data make` reads.
    """
    from prototxt_gen.data.info import info

    found = _with_progress(info, src, **given)
    if as_json:
        echo_json(asdict(found) | {"path": str(found.path)})
        return
    for line in _info_lines(found):
        click.echo(safe(line))


def _with_progress(function: Callable[..., Any], src: Path, **given: Any) -> Any:
    with progress_bar(str(src)) as progress:
        return function(src, progress=progress, **given)


def _info_lines(found: Info) -> list[str]:
    names = [found.classes[label] if label < len(found.classes) else str(label) for label in found.labels]
    labels = [f"{name} {count:,}" for name, count in zip(names, found.labels.values(), strict=True)]
    return [
        f"{found.path}: {found.kind}, {found.count:,} samples, {found.bytes:,} bytes",
        f"shapes (channels x height x width): {_counts(found.shapes)}",
        f"stored as: {found.dtype}{f', {found.encoded:,} of them image files' if found.encoded else ''}",
        f"{len(labels)} labels: {_cut_off(labels)}",
    ]


def _counts(shapes: dict[str, int]) -> str:
    return _cut_off([f"{shape} ({count:,})" for shape, count in shapes.items()])


def _cut_off(items: list[str]) -> str:
    """Return the first items of a list, and how many more there are."""
    more = f" and {len(items) - _MAX_LISTED} more" if len(items) > _MAX_LISTED else ""
    return ", ".join(items[:_MAX_LISTED]) + more


@data.command(examples=["prototxt-gen data mean train_lmdb", "prototxt-gen data mean train_lmdb -o mean.binaryproto"])
@click.argument("src", type=options.FILE)
@click.option("-o", "--output", "out", type=options.OUTPUT_FILE, show_default="not written",
              help="Write the mean of each pixel to this .binaryproto file; - is stdout, and the other results go to "
              "stderr.")  # fmt: skip
@_data_set_options
@options.force
@options.as_json
def mean(src: Path, as_json: bool, **given: Any) -> None:
    """Print the mean of each channel, as mean_value of transform_param, in the order of the stored channels."""
    from prototxt_gen.data.info import mean

    found = _with_progress(mean, src, **given)
    to_stderr = found.file == STDOUT
    if as_json:
        written = found.file and str(found.file)
        echo_json({"count": found.count, "channels": found.channels, "written": written}, to_stderr)
        return
    click.echo(" ".join(f"mean_value: {value:.6g}" for value in found.channels), err=to_stderr)
    echo_files([found.file] if found.file else [])
