"""`prototxt-gen verify`: the same inputs through every runtime, blob by blob."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.convert_options import PREPROCESSING, READING, decorated, subject
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.table import echo_table
from prototxt_gen.common.printable import safe, safe_lines

if TYPE_CHECKING:
    from converters.common.net_with_weights import Subject
    from converters.verification.runtimes import Runtime
    from converters.verification.verify import Report


@click.command()
@decorated(READING, PREPROCESSING)
@click.option(
    "--against", metavar="RUNTIMES", default="pycaffe,torch,onnx,opencv", help="Which, with commas between; all."
)
@click.option("--model", type=options.FILE, help="An ONNX model of the net, to run beside the others.")
@click.option("--input", "file", type=options.FILE, help="A picture, a .npy, or a .npz by blob name.")
@click.option("--seed", type=int, default=0, help="Seed of the noise.")
@options.as_json
def verify(against: str, model: Path | None, file: Path | None, seed: int, as_json: bool, **given: Any) -> None:
    """Run NET with WEIGHTS in every runtime there is and compare all blobs; exit code 1 where they differ."""
    from converters.verification import comparison_inputs, verification_report
    from converters.verification.verify import verify as run

    made = subject(**given)
    fed = _given(made, file) if file else comparison_inputs.seeded(made, seed)
    names = [name.strip() for name in against.split(",") if name.strip()]
    found = run(made, fed, names, _of_model(made, model))
    echo_json(verification_report.as_data(found)) if as_json else _echo(made, found)
    if not found.verified:
        raise click.exceptions.Exit(1)


def _given(made: Subject, file: Path) -> dict[str, Any]:
    from converters.common.loading_errors import opening
    from converters.verification import comparison_inputs

    with opening(file, "a picture, or arrays that NumPy wrote"):
        return comparison_inputs.given(made, file)


def _of_model(made: Subject, model: Path | None) -> dict[str, Runtime]:
    return {model.name: lambda subject, fed: _run(subject, model, fed)} if model else {}


def _run(subject: Subject, model: Path, fed: Mapping[str, Any]) -> dict[str, Any]:
    from converters.common.loading_errors import opening
    from converters.verification.runtimes import run_onnx_of

    with opening(model):
        return run_onnx_of(subject, model, fed)


def _echo(made: Subject, found: Report) -> None:
    from converters.verification import verification_report

    for remark in made.remarks:
        click.echo(f"note: {safe_lines(remark)}", err=True)
    columns = verification_report.columns(found)
    if found.compared:
        echo_table(columns, [tuple(map(safe, row)) for row in verification_report.rows(found)], right=columns[3:])
        click.echo()
    for sentence in verification_report.sentences(found):
        click.echo(safe_lines(sentence))
