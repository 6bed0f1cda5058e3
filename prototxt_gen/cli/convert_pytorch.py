"""`prototxt-gen convert pytorch`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.convert_options import PREPROCESSING, READING, decorated, echo_conversion, subject


@click.command()
@decorated(READING, PREPROCESSING)
@click.option("-o", "--output", type=options.FILE, help="What to write; the weights' name unless told.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["folder", "pt2"]),
    help="folder (unless the output ends in .pt2): model.py and model.safetensors, nothing of ours needed; "
    "pt2: a file by torch.export.",
)
@click.option("--no-verify", is_flag=True, help="Do not run what was written against Caffe and PyTorch.")
@options.force
def pytorch(output: Path | None, form: str | None, no_verify: bool, force: bool, **given: Any) -> None:
    """Convert NET with WEIGHTS to PyTorch, and run it against real Caffe, if it is there."""
    from converters.write_models import write_torch

    form = form or ("pt2" if output is not None and output.suffix == ".pt2" else "folder")
    suffix = "" if form == "folder" else ".pt2"
    named = given["weights"] or given["net"]
    out = output or named.with_name(named.name.split(".")[0] + suffix)
    echo_conversion(write_torch(subject(**given), out, form, force=force, verified=not no_verify))
