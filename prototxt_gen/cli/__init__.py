"""The command line: `prototxt-gen COMMAND`. A command's module is imported when it runs, so that `--help` is fast."""

from __future__ import annotations

import gc
import os
import sys

import click

from prototxt_gen.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "emit": LazyCommand("emit_command", "Write the prototxts of a model: deploy, train_val, solver."),
    "models": LazyCommand("models_command", "List the models that `emit` can write."),
    "summary": LazyCommand("summary_command", "Print shapes, parameters, MACs and memory of each layer."),
    "check": LazyCommand("check_command", "Print all errors of a net or solver."),
    "draw": LazyCommand("draw_command", "Draw a net as SVG, PNG, DOT or HTML."),
    "view": LazyCommand("view_command", "Open a net in Netron."),
    "convert": LazyCommand("convert_command", "Convert from Caffe: to ONNX, PyTorch, or other Caffe files."),
    "verify": LazyCommand("verify_command", "Run a net in Caffe, PyTorch and ONNX Runtime, and compare all blobs."),
    "data": LazyCommand("data_command", "Make LMDB and HDF5 data sets, print what they hold, and their mean."),
    "train": LazyCommand("train_command", "Train with a solver.prototxt, on PyTorch or with real Caffe."),
    "eval": LazyCommand("eval_command", "Measure top-1 and top-5 accuracy on a data set."),
    "classify": LazyCommand("classify_command", "Classify image files; draw attention masks."),
    "demo": LazyCommand("demo_command", "Run the whole job on real images in minutes: emit, train, convert, evaluate."),
    "caffe": LazyCommand("caffe_command", "Build and install real Caffe; show which one is installed."),
    "layers": LazyCommand("layers_command", "List the supported layer types."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=["prototxt-gen emit attention-56 -o net", "prototxt-gen convert onnx deploy.prototxt net.caffemodel"],
)
@click.version_option(package_name="prototxt-gen")
def cli() -> None:
    """Generate, read, check, train, evaluate and convert Caffe nets, without Caffe."""


def main() -> None:
    """Run the command line; an expected error is one sentence on stderr and exit code 1."""
    _reopen_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 gets escapes, not a traceback
    gc.set_threshold(200_000, 20, 100)  # a net of 100,000 layers is millions of objects, and next to no garbage
    cli()


def _reopen_closed_streams() -> None:
    """Open the null device for each standard stream that was closed (2>&-): else a later file takes its number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115  (open until the end)
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
