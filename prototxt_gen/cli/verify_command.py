"""`prototxt-gen verify`: the same inputs through every runtime, compared blob by blob."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.convert_options import echo_notes, net_and_weights, preprocessing_options, read_model_from_options
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.table import echo_table
from prototxt_gen.common.printable import safe, safe_lines

if TYPE_CHECKING:
    from converters.common.net_with_weights import NetWithWeights
    from converters.verification.runtimes import Runtime
    from converters.verification.verify import VerificationReport


@click.command(
    cls=Command,
    examples=[
        "prototxt-gen verify deploy.prototxt net.caffemodel --against pycaffe,onnx",
        "prototxt-gen verify deploy.prototxt net.caffemodel --input cat.jpg --mean 104,117,123",
    ],
)
@net_and_weights
@preprocessing_options(
    "Mean to subtract from the image",
    "Factor applied to the image after subtracting the mean.",
    "an image of --input is read in this order, or as BGR if it is not known",
)
@click.option("--against", metavar="RUNTIMES", show_default="those of pycaffe,torch,onnx,opencv that run",
              help="Runtimes to compare, separated by commas; each of them must run.")  # fmt: skip
@click.option("--model", type=options.FILE, help="ONNX model of the same net, to compare with the others.")
@click.option("--input", "file", type=options.FILE, show_default="random",
              help="Data for the inputs of the net: an image, which is resized and preprocessed; a .npy array for the "
              "only input, or a .npz of arrays by blob name, which are used as they are.")  # fmt: skip
@click.option("--seed", type=int, metavar="N", default=0, show_default=True,
              help="Random seed of the inputs used without --input.")  # fmt: skip
@options.as_json
def verify(against: str | None, model: Path | None, file: Path | None, seed: int, as_json: bool, **given: Any) -> None:
    """Run NET with WEIGHTS in Caffe, PyTorch, ONNX Runtime and OpenCV, and compare all blobs.

    Without --against, runtimes that cannot run the net are skipped. The exit code is 1 if blobs differ, if only one
    runtime ran, if one of --against did not run, or if weights are NaN.
    """
    from converters.verification import comparison_inputs, verification_report
    from converters.verification.runtimes import RUNTIMES
    from converters.verification.verify import verify as run

    made = read_model_from_options(**given)
    arrays = _inputs_from(made, file) if file else comparison_inputs.seeded_inputs(made, seed)
    names = [name.strip() for name in (against or "").split(",") if name.strip()]
    found = run(made, arrays, names or list(RUNTIMES), _model_runtime(model), names)
    echo_json(verification_report.as_dict(found)) if as_json else _echo(made, found)
    if not found.verified:
        raise click.exceptions.Exit(1)


def _inputs_from(made: NetWithWeights, file: Path) -> dict[str, Any]:
    from converters.common.loading_errors import translate_loading_errors
    from converters.verification import comparison_inputs

    with translate_loading_errors(file, "an image, or arrays that NumPy wrote"):
        return comparison_inputs.inputs_from_file(made, file)


def _model_runtime(model: Path | None) -> dict[str, Runtime]:
    """Return the ONNX model of --model as a runtime by its file name."""
    return {model.name: lambda caffe_model, arrays: _run(caffe_model, model, arrays)} if model else {}


def _run(caffe_model: NetWithWeights, model: Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    from converters.common.loading_errors import translate_loading_errors
    from converters.verification.runtimes import run_onnx_export

    with translate_loading_errors(model):
        return run_onnx_export(caffe_model, model, arrays)


def _echo(made: NetWithWeights, found: VerificationReport) -> None:
    from converters.verification import verification_report

    echo_notes(made.remarks)
    columns = verification_report.table_columns(found)
    if found.compared:
        echo_table(columns, [tuple(map(safe, row)) for row in verification_report.table_rows(found)], right=columns[3:])
        click.echo()
    for sentence in verification_report.summary_sentences(found):
        click.echo(safe_lines(sentence))
