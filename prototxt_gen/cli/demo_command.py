"""`prototxt-gen demo`: the whole job on real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.table import echo_table
from prototxt_gen.common.printable import safe
from prototxt_gen.common.progress import progress_bar


@click.command(
    cls=Command, examples=["prototxt-gen demo", "prototxt-gen demo -o mine --data images/ --minutes 10 --force"]
)
@click.option("-o", "--output", type=options.OUTPUT_FOLDER, default="demo", show_default=True, help="Output directory.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True,
              help="Length of training, as iterations that take so long on two cores.")  # fmt: skip
@click.option("--backend", type=options.BACKEND, default="torch", show_default=True,
              help="Runtime that trains: torch, or pycaffe (real Caffe).")  # fmt: skip
@click.option("--data", type=options.FILE, show_default="Fashion-MNIST",
              help="Data set to train on, with parts train and test.")  # fmt: skip
@options.force
@options.as_json
def demo(output: Path, minutes: float, backend: str, data: Path | None, force: bool, as_json: bool) -> None:
    """Run the whole job on real images and write a report: emit, train, convert, verify, evaluate.

    First all attention models are written, checked, measured and drawn. Then a small one is trained. Fashion-MNIST
    comes from Debian's package dataset-fashion-mnist; if that cannot be had, MNIST digits from a wheel of PyPI.
    """
    from prototxt_gen.demo.run_demo import DemoOptions, as_data, run_demo

    def say(text: str) -> None:
        click.echo(safe(text), err=True)

    found = as_data(run_demo(DemoOptions(output, minutes, backend, data, force, say=say, bar=progress_bar)))
    if as_json:
        echo_json(found)
        return
    rows = [(one["format"], one["runtime"], safe(_accuracy(one))) for one in found["formats"]]
    echo_table(("format", "runtime", "accuracy"), rows)
    click.echo(f"\nimages that the formats see differently: {found['differing']}")
    click.echo(f"report: {safe(str(output / 'report.html'))}")


def _accuracy(one: dict[str, Any]) -> str:
    """Return the accuracy of a format, or why it was not run."""
    return f"{one['accuracy']:.2%}" if one["accuracy"] is not None else str(one["not_run"])
