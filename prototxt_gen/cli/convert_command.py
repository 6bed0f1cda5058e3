"""`prototxt-gen convert`: the group of conversions; each is a command in a module of its own."""

from __future__ import annotations

import click

from prototxt_gen.cli.lazy import LazyCommand, LazyGroup

CONVERSIONS = {
    "onnx": LazyCommand("convert_onnx", "Caffe to ONNX."),
    "pytorch": LazyCommand("convert_pytorch", "Caffe to PyTorch."),
    "caffemodel": LazyCommand("convert_caffemodel", "ONNX, PyTorch or old weights to .caffemodel or .h5."),
    "prototxt": LazyCommand("convert_prototxt", "Prototxt to prototxt: upgrade, other fork, deploy to train_val."),
    "bn": LazyCommand("convert_bn", "Caffe to Caffe: merge, split or fold batch normalisation, with the weights."),
}


@click.group(
    cls=LazyGroup,
    lazy=CONVERSIONS,
    examples=[
        "prototxt-gen convert onnx deploy.prototxt net.caffemodel -o net.onnx  # Caffe to ONNX",
        "prototxt-gen convert caffemodel net.onnx -o net.caffemodel            # ONNX to Caffe",
    ],
)
def convert() -> None:
    """The word after `convert` is what comes out: `convert onnx` converts a Caffe net to ONNX."""
