"""`prototxt-gen convert onnx`: Caffe to ONNX."""

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


@click.command(
    cls=Command,
    examples=[
        "prototxt-gen convert onnx deploy.prototxt net.caffemodel -o net.onnx",
        "prototxt-gen convert onnx deploy.prototxt net.caffemodel --mean 104,117,123 --dynamic-size",
    ],
)
@net_and_weights
@stored_preprocessing
@click.option("-o", "--output", type=options.OUTPUT_FILE, show_default="the name of WEIGHTS with .onnx",
              help="Output file; - is stdout.")  # fmt: skip
@click.option("--opset", type=click.IntRange(18, 23), metavar="N", show_default="20", help="ONNX opset, 18 to 23.")
@click.option("--no-fold", is_flag=True,
              help="Keep BN, BatchNorm and Scale as separate ONNX nodes, so that all Caffe blobs exist.")  # fmt: skip
@click.option("--dynamic-size", is_flag=True,
              help="Let the model accept other image heights and widths (dynamic axes), if the net does.")  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Skip the comparison of the output with Caffe and PyTorch.")
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
    """Convert a Caffe net, NET with WEIGHTS, to ONNX.

    The output is compared with PyTorch, and with real Caffe if it is installed; it is not written if they differ.
    """
    from converters.write_models import write_onnx

    out = output or (given["weights"] or given["net"]).with_suffix(".onnx")
    chosen = {"fold_bn": not no_fold, "dynamic_size": dynamic_size} | ({"opset": opset} if opset else {})
    echo_conversion(
        write_onnx(read_model_from_options(**given), out, force=force, verify_output=not no_verify, **chosen)
    )
