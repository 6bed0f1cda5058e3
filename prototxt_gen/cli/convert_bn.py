"""`prototxt-gen convert bn`: merge, split or fold batch normalisation in a net and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.convert_options import (
    echo_notes,
    load_plugins,
    net_and_weights,
    reading_from_options,
    statistic_name,
)
from prototxt_gen.cli.output import echo_files
from prototxt_gen.cli.read_net import read_all_phases
from prototxt_gen.common.errors import PrototxtGenError

FORK_OF_FORM = {"merged": "buptwangfei", "batchnorm-scale": "bvlc", "folded": "bvlc"}


@click.command(
    cls=Command,
    examples=["prototxt-gen convert bn deploy.prototxt net.caffemodel -o split --to batchnorm-scale"],
)
@net_and_weights
@click.option(
    "-o", "--output", type=options.OUTPUT_FOLDER, required=True, help="Output folder for prototxt and weights."
)
@click.option("--to", "form", type=click.Choice(list(FORK_OF_FORM)), required=True,
              help="Form of batch normalisation to write (see above).")  # fmt: skip
@click.option("--to-dialect", type=options.FORK, show_default="buptwangfei for merged, bvlc for the others",
              help="Caffe fork that will read the weights.")  # fmt: skip
@click.option("--to-statistic", type=options.BN_STATISTIC, show_default="what that fork uses",
              help="What to write as the 4th blob of BN layers: variance, or 1/std (inverse-std).")  # fmt: skip
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
    """Merge, split or fold the batch normalisation of NET and WEIGHTS.

    The forms are: merged, one BN layer with four blobs, as in several forks; batchnorm-scale, BatchNorm and Scale, as
    in BVLC Caffe; folded, no such layers, computed by the layers before them. The output is run and compared with the
    input; it is not written if they differ.
    """
    from converters.caffemodel_export.rewrite_bn import write_bn_form

    load_plugins(given["plugins"])
    if weights is None:
        raise PrototxtGenError(f"{net}: net and weights change together: give a .caffemodel after it")
    whole = read_all_phases(net)
    how = reading_from_options(whole, given)
    statistic = statistic_name(to_statistic) or ""
    done = write_bn_form(whole, weights, output, form, how, to_dialect or FORK_OF_FORM[form], statistic, force)
    echo_notes(done.remarks)
    echo_files(done.files)
