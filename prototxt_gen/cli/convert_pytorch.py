"""`prototxt-gen convert pytorch`: Caffe to PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.convert_options import (
    echo_conversion,
    net_and_weights,
    read_model_from_options,
    stored_preprocessing,
)
from prototxt_gen.cli.renamed_options import renamed_option

FORMATS = click.Choice(["folder", "pt2"])


@click.command(
    cls=Command,
    examples=[
        "prototxt-gen convert pytorch deploy.prototxt net.caffemodel -o net_pytorch",
        "prototxt-gen convert pytorch deploy.prototxt net.caffemodel -o net.pt2",
    ],
)
@net_and_weights
@stored_preprocessing
@click.option("-o", "--output", type=options.OUTPUT_FILE,
              show_default="the name of WEIGHTS without suffix, or with .pt2",
              help="Output folder or .pt2 file; - is stdout, for a .pt2.")  # fmt: skip
@click.option("--to", "form", type=FORMATS, show_default="pt2 if the output ends in .pt2 or is no file, else folder",
              help="Format: folder (model.py and model.safetensors, which run without prototxt-gen) or pt2 (one file "
              "of torch.export).")  # fmt: skip
@renamed_option("--format", "--to", type=FORMATS)
@click.option("--no-verify", is_flag=True, help="Skip the comparison of the output with Caffe and PyTorch.")
@options.force
def pytorch(output: Path | None, form: str | None, no_verify: bool, force: bool, **given: Any) -> None:
    """Convert a Caffe net, NET with WEIGHTS, to PyTorch.

    The output is compared with the net in this package's PyTorch modules, and in real Caffe if it is installed; it is
    not written if they differ.
    """
    from converters.write_models import write_torch

    form = form or ("pt2" if output is not None and _is_one_file(output) else "folder")
    suffix = "" if form == "folder" else ".pt2"
    named = given["weights"] or given["net"]
    out = output or named.with_name(named.name.split(".")[0] + suffix)
    echo_conversion(write_torch(read_model_from_options(**given), out, form, force=force, verify_output=not no_verify))


def _is_one_file(output: Path) -> bool:
    from prototxt_gen.common.files import is_written_directly

    return output.suffix == ".pt2" or is_written_directly(output)
