"""`prototxt-gen convert bn`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.convert_options import READING, STATISTIC, decorated, echo_notes, load_plugins, read_as
from prototxt_gen.common.errors import PrototxtGenError

_HOME = {"merged": "buptwangfei", "batchnorm-scale": "bvlc", "folded": "bvlc"}


@click.command()
@decorated(READING)
@click.option("-o", "--output", type=options.FOLDER, required=True, help="Folder for the prototxt and the weights.")
@click.option("--to", "form", type=click.Choice(list(_HOME)), required=True, help="The form to bring it into.")
@click.option("--to-dialect", metavar="FORK", help="Whose numbers to write; that of the form's own fork unless told.")
@click.option("--to-statistic", type=STATISTIC, help="What the fourth blob of BN is to hold.")
@options.force
def bn(
    net: Path,
    weights: Path | None,
    output: Path,
    form: str,
    to_dialect: str | None,
    to_statistic: str | None,
    force: bool,
    **given: Any,
) -> None:
    """Merge, split or fold the batch normalisation of NET and WEIGHTS, and check that they compute the same.

    merged: BN, with its four blobs in one layer, as several forks have it. batchnorm-scale: BatchNorm and Scale, as
    BVLC's Caffe has it. folded: gone into the layers before it.
    """
    from converters.caffemodel_export.rewrite_bn import write_form

    load_plugins(given["plugins"])
    if weights is None:
        raise PrototxtGenError(f"{net}: net and weights change together: give a .caffemodel after it")
    read = options.read_whole(net)
    how = read_as(read, given)
    statistic = (to_statistic or "").replace("-", "_")
    done = write_form(read, weights, output, form, how, to_dialect or _HOME[form], statistic, force)
    echo_notes(done.remarks)
    for path in done.files:
        click.echo(path)
