"""`prototxt-gen convert`: the group; each conversion is a command in a module of its own."""

from __future__ import annotations

import click

from prototxt_gen.cli.lazy import Lazy, LazyGroup

CONVERSIONS = {
    "prototxt": Lazy("convert_prototxt", "Upgrade, change the dialect, train_val to deploy and back."),
    "onnx": Lazy("convert_onnx", "To ONNX."),
    "pytorch": Lazy("convert_pytorch", "To PyTorch."),
    "bn": Lazy("convert_bn", "Merge, split or fold batch normalisation, weights with it."),
    "caffemodel": Lazy("convert_caffemodel", "Weights to another form: V2, HDF5, a fork's numbers."),
}


@click.group(cls=LazyGroup, lazy=CONVERSIONS)
def convert() -> None:
    """Turn a net into another form."""
