"""Options and arguments that several commands share. An option has the same meaning in every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from prototxt_gen.cli.param_types import floats
from prototxt_gen.cli.renamed_options import replaced_option
from prototxt_gen.common.files import STDOUT
from prototxt_gen.schema.dialect import DIALECTS

Decorator = Callable[[Any], Any]
FILE = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)


class OutputPath(click.Path):
    """A path to write. For a file, - is stdout; a folder cannot be written there."""

    def __init__(self, is_folder: bool = False) -> None:
        super().__init__(path_type=Path, file_okay=not is_folder)
        self.is_folder = is_folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises click.BadParameter if it is - and a folder is written, or a file for a folder."""
        if value != "-":
            return super().convert(value, param, ctx)
        if self.is_folder:
            self.fail("- is stdout, which takes one file, and the output is a folder; a folder of this name is ./-")
        return STDOUT


OUTPUT_FILE = OutputPath()
OUTPUT_FOLDER = OutputPath(is_folder=True)
FORK = click.Choice(list(DIALECTS))
BN_STATISTIC = click.Choice(["inverse-std", "variance"])
BACKEND = click.Choice(["torch", "pycaffe"])
DATA_LAYERS = ("lmdb", "hdf5", "image-list", "python", "input")

SOURCE_KINDS = ("folder", "list", "npz", "cifar10", "cifar100", "cifar100-coarse", "cifar-python", "idx")
"""Formats that `data make` reads. Repeated from prototxt_gen.data.source_detection, which imports NumPy."""
STORED_KINDS = ("lmdb", "hdf5", "hdf5-list")
"""Formats of data sets that Caffe reads; from prototxt_gen.data.source_detection, too."""


def option_group(*decorators: Decorator) -> Decorator:
    """Return one decorator for several options and arguments, in this order."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


force = click.option("--force", is_flag=True, help="Overwrite existing output files.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
net_argument = click.argument("net", type=FILE)


def phase_option(default: str) -> Decorator:
    """Return the option --phase; `default` says in words which phase is used without it."""
    choice = click.Choice(["TRAIN", "TEST"], case_sensitive=False)
    text = "Phase of the net: layers that its include and exclude rules keep for the other phase are left out."
    return click.option("--phase", type=choice, help=text, show_default=default)


phase = phase_option("TEST, or TRAIN if the file has no other")
stage = click.option(
    "--stage",
    "stages",
    multiple=True,
    metavar="STAGE",
    help="Stage of the net's state, for layers with a stage or not_stage in their include and exclude rules. "
    "Repeatable.",
)
level = click.option(
    "--level",
    type=int,
    default=0,
    show_default=True,
    help="Level of the net's state, for layers with a min_level or max_level in their include and exclude rules.",
)
input_size = click.option(
    "--input-size",
    "size",
    metavar="SIZE",
    help="Size of the image input: 320, 240x320 (height x width), 3x240x320 or 1x3x240x320.",
)
shape = click.option(
    "--shape", "shapes", multiple=True, metavar="BLOB=1x3x224x224", help="Shape of an input blob. Repeatable."
)
ignored_fields = click.option(
    "--ignore-field",
    "ignored",
    multiple=True,
    metavar="NAME",
    help="Name of an unknown field that does not change the result, so that it is no error. Repeatable.",
)
crop_rule = click.option(
    "--crop-rule",
    type=click.Choice(["coordinates", "offset"]),
    show_default="as the net tells; an error where it can mean both",
    help="Where Crop layers without crop_param cut: where the coordinates of their bottoms agree, as in the Caffe of "
    "HED and the first FCNs, or at offset 0, as in BVLC's.",
)
fork_rules = option_group(
    crop_rule,
    click.option(
        "--anchor-rule",
        type=click.Choice(["scale", "scale-over-base"]),
        show_default="as the net tells; an error where it can mean both",
        help="Size of the anchors of Proposal layers: side of the ratio x scale, as in Intel's Caffe, OpenVINO and "
        "OpenCV, or that over base_size, as in happynear's and brocolli's Caffe.",
    ),
)
"""Meaning of layers that forks of Caffe compute in different ways from the same text."""
plugins = click.option(
    "--plugin", "plugins", multiple=True, type=FILE, help="Python file that defines layer types. Repeatable."
)


def data_layer_options(
    kind: str, batch: str, test_batch: str, crop: str, mean: str, mirror: str = "mirror"
) -> Decorator:
    """Return the options that describe the data layers of a train_val; the arguments are their defaults in words."""
    return option_group(
        click.option("--data-layer", "kind", type=click.Choice(DATA_LAYERS), show_default=kind,
                     help="Data layer of the train_val: lmdb (Data), hdf5 (HDF5Data), image-list (ImageData), "
                     "python (this package's Python layer, with augmentation) or input (Input, fed by the caller)."),
        replaced_option("--data", "--data is the path of a data set in other commands; here write --data-layer {} for "
                        "the kind of data layer, --train-data and --test-data for its sources"),
        click.option("--train-data", "train", metavar="PATH", show_default="train_lmdb",
                     help="Source of the training images: LMDB folder or list file."),
        click.option("--test-data", "test", metavar="PATH", show_default="test_lmdb",
                     help="Source of the test images: LMDB folder or list file."),
        click.option("--batch", type=click.IntRange(min=1), metavar="N", show_default=batch,
                     help="Batch size in training; with several GPUs, of each."),
        click.option("--test-batch", type=click.IntRange(min=1), metavar="N", show_default=test_batch,
                     help="Batch size in testing."),
        click.option("--crop", type=click.IntRange(min=1), metavar="N", show_default=crop,
                     help="Height and width of the crop."),
        click.option("--resize", type=click.IntRange(min=1), metavar="N", show_default="not resized",
                     help="Height and width to resize images to before the crop (image-list only)."),
        click.option("--mirror/--no-mirror", default=None, show_default=mirror,
                     help="Mirror training images at random."),
        click.option("--mean", type=floats, metavar="B,G,R", show_default=mean,
                     help="Mean to subtract: one number per channel, or one for all."),
        click.option("--scale", type=float, show_default="1", help="Factor applied after subtracting the mean."),
    )  # fmt: skip


def source_options(kinds: tuple[str, ...], root_default: str) -> Decorator:
    """Return the options that say how a data set is read, of these formats."""
    return option_group(
        click.option("--kind", type=click.Choice(kinds), help="Format of the data.", show_default="detected"),
        click.option("--split", help="Part to read, if the data have several: train, test, …"),
        click.option(
            "--root",
            metavar="PREFIX",
            help="Text put before every path of a list file, as root_folder of ImageData.",
            show_default=root_default,
        ),
    )
