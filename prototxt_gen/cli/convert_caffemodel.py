"""`prototxt-gen convert caffemodel`: ONNX, PyTorch or other Caffe weights to .caffemodel or .h5."""

from __future__ import annotations

from pathlib import Path

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.convert_options import echo_notes, load_plugins, statistic_name
from prototxt_gen.cli.output import echo_files
from prototxt_gen.cli.read_net import read_all_phases, shapes_from_options


@click.command(
    cls=Command,
    examples=[
        "prototxt-gen convert caffemodel net_pytorch -o net.caffemodel --write-net deploy.prototxt",
        "prototxt-gen convert caffemodel old.caffemodel -o new.caffemodel.h5",
    ],
)
@click.argument("model", type=options.FILE)
@click.option("-o", "--output", type=options.OUTPUT_FILE, required=True,
              help="Output file: .caffemodel or .caffemodel.h5; - is stdout, for a .caffemodel.")  # fmt: skip
@click.option("--net", type=options.FILE, show_default="the net stored in MODEL", help="Prototxt of the net.")
@click.option("--write-net", type=options.OUTPUT_FILE, help="Also write the net to this prototxt file.")
@options.shape
@click.option("--dialect", type=options.FORK, show_default="detected", help="Caffe fork that wrote MODEL.")
@click.option("--bn-statistic", "statistic", type=options.BN_STATISTIC, show_default="detected",
              help="What the 4th blob of BN layers in MODEL is: variance, or 1/std (inverse-std).")  # fmt: skip
@click.option("--to-dialect", type=options.FORK, default="bvlc", show_default=True,
              help="Caffe fork that will read the weights.")  # fmt: skip
@click.option("--to-statistic", type=options.BN_STATISTIC, show_default="what that fork uses",
              help="What to write as the 4th blob of BN layers: variance, or 1/std (inverse-std).")  # fmt: skip
@options.ignored_fields
@options.plugins
@options.force
def caffemodel(
    model: Path,
    output: Path,
    net: Path | None,
    write_net: Path | None,
    shapes: tuple[str, ...],
    dialect: str | None,
    statistic: str | None,
    to_dialect: str,
    to_statistic: str | None,
    ignored: tuple[str, ...],
    plugins: tuple[Path, ...],
    force: bool,
) -> None:
    """Convert the weights of MODEL to .caffemodel or .h5.

    MODEL is the output of `convert onnx` or `convert pytorch`, also after more training: .onnx, a folder,
    .safetensors, or a state_dict in .pt or .pth. Or it is a .caffemodel or .h5 of any age: it is written in the
    current format, and with --net for another fork.
    """
    from converters.caffemodel_export.write_caffemodel import CaffemodelOptions, write_caffemodel
    from converters.common.net_with_weights import ReadOptions

    load_plugins(plugins)
    read = read_all_phases(net) if net else None
    how = ReadOptions(
        shapes=shapes_from_options(read, None, shapes) if read else {},
        dialect=dialect,
        bn_statistic=statistic_name(statistic),
        ignore_fields=ignored,
    )
    asked = CaffemodelOptions(how, to_dialect, statistic_name(to_statistic))
    done = write_caffemodel(model, output, read, asked, write_net, force)
    echo_notes(done.remarks)
    echo_files(done.files)
