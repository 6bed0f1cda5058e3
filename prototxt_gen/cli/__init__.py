"""The command line: `prototxt-gen COMMAND`. Commands are loaded only when they run, so that `--help` stays quick."""

from __future__ import annotations

import gc
import os
import sys

import click

from prototxt_gen.cli.lazy import Lazy, LazyGroup

COMMANDS = {
    "emit": Lazy("emit_command", "Write a net's deploy, train_val and solver prototxts, and its card."),
    "models": Lazy("models_command", "List the zoo."),
    "summary": Lazy("summary_command", "Shapes, parameters, MACs and memory of a net, layer by layer."),
    "check": Lazy("check_command", "Everything that is wrong with a net, at once."),
    "draw": Lazy("draw_command", "Draw a net as SVG, PNG, DOT or HTML."),
    "view": Lazy("view_command", "Open a net in Netron."),
    "convert": Lazy("convert_command", "To ONNX, PyTorch, or another form of Caffe."),
    "verify": Lazy("verify_command", "Run a net in every runtime there is and compare all blobs."),
    "data": Lazy("data_command", "Make data sets that Caffe reads; say what they hold, and their mean."),
    "train": Lazy("train_command", "Train as a solver.prototxt says, on PyTorch or with real Caffe."),
    "eval": Lazy("eval_command", "Top-1 and top-5 accuracy of a net, in any runtime."),
    "classify": Lazy("classify_command", "The classes a net sees in pictures; the attention masks over them."),
    "demo": Lazy("demo_command", "All of it on real images, in minutes: emit, train, convert, verify, report."),
    "caffe": Lazy("caffe_command", "Build and install real Caffe; say which one is there."),
    "layers": Lazy("layers_command", "List the layer types and what can be done with each."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prototxt-gen")
def cli() -> None:
    """Caffe nets without Caffe: generate, read, check, train, convert."""


def main() -> None:
    """Run the command line; an error of ours is one sentence on stderr and exit code 1."""
    _open_what_was_closed()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 gets escapes, not a traceback
    gc.set_threshold(200_000, 20, 100)  # a net of 100,000 layers is millions of objects, and next to no garbage
    cli()


def _open_what_was_closed() -> None:
    """Make the null device of a stream that was closed (2>&-): else a file opened later is taken for it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115  (open until the end)
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
