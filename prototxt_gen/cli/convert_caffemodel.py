"""`prototxt-gen convert caffemodel`."""

from __future__ import annotations

from pathlib import Path

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.convert_options import IGNORED, PLUGIN, STATISTIC, echo_notes, load_plugins


@click.command()
@click.argument("model", type=options.FILE)
@click.option("-o", "--output", type=options.FILE, required=True, help="A .caffemodel, or .caffemodel.h5, to write.")
@click.option("--net", type=options.FILE, help="The net's prototxt, where the model does not carry it.")
@click.option("--write-net", type=options.FILE, help="Write the net that the model carries, too.")
@options.shape
@click.option("--dialect", metavar="FORK", help="The fork that wrote a .caffemodel, where it does not tell.")
@click.option("--bn-statistic", "statistic", type=STATISTIC, help="What the fourth blob of its BN holds.")
@click.option("--to-dialect", metavar="FORK", default="bvlc", show_default=True, help="Whose numbers to write.")
@click.option("--to-statistic", type=STATISTIC, help="What the fourth blob of BN is to hold.")
@IGNORED
@PLUGIN
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
    """Write MODEL's weights for Caffe.

    MODEL is what `convert pytorch` or `convert onnx` wrote, trained on perhaps: a folder, .safetensors, a state_dict
    in .pt or .pth, or .onnx. Or it is a .caffemodel of any age, or .h5: it is written as V2, or HDF5, and with --net in
    another fork's numbers.
    """
    from converters.caffemodel_export.write_caffemodel import Asked, write_back
    from converters.common.net_with_weights import Reading

    load_plugins(plugins)
    read = options.read_whole(net) if net else None
    how = Reading(
        shapes=options.given_shapes(read, None, shapes) if read else {},
        dialect=dialect,
        statistic=statistic and statistic.replace("-", "_"),
        ignored=ignored,
    )
    asked = Asked(how, to_dialect, to_statistic and to_statistic.replace("-", "_"))
    done = write_back(model, output, read, asked, write_net, force)
    echo_notes(done.remarks)
    for path in done.files:
        click.echo(path)
