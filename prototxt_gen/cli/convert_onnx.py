"""`prototxt-gen convert onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.convert_options import PREPROCESSING, READING, decorated, echo_conversion, subject


@click.command()
@decorated(READING, PREPROCESSING)
@click.option("-o", "--output", type=options.FILE, help="The model to write; the weights' name with .onnx unless told.")
@click.option("--opset", type=int, help="ONNX opset, 18 to 23; 20 unless told.")
@click.option("--no-fold", is_flag=True, help="Leave batch normalisation as it is, with every blob.")
@click.option("--dynamic-size", is_flag=True, help="Leave height and width of the input open, where the net allows.")
@click.option("--no-verify", is_flag=True, help="Do not run what was written against Caffe and PyTorch.")
@options.force
def onnx(
    output: Path | None,
    opset: int | None,
    no_fold: bool,
    dynamic_size: bool,
    no_verify: bool,
    force: bool,
    **given: Any,
) -> None:
    """Convert NET with WEIGHTS to ONNX, and run it against real Caffe, if it is there, and PyTorch."""
    from converters.write_models import write_onnx

    out = output or (given["weights"] or given["net"]).with_suffix(".onnx")
    chosen = {"fold_bn": not no_fold, "dynamic_size": dynamic_size} | ({"opset": opset} if opset else {})
    echo_conversion(write_onnx(subject(**given), out, force=force, verified=not no_verify, **chosen))
