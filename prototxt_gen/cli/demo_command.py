"""`prototxt-gen demo`: the main job on real images, end to end."""

from __future__ import annotations

from pathlib import Path

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.progress import bar
from prototxt_gen.common.printable import safe


@click.command()
@click.option("-o", "--output", "out", type=options.FOLDER, default="demo", show_default=True, help="Folder to write.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True,
              help="Length of training on two cores; it sets a number of iterations.")  # fmt: skip
@click.option("--backend", type=click.Choice(["torch", "pycaffe"]), default="torch", help="What trains.")
@click.option("--data", type=options.FILE, help="Images of your own, with parts train and test; else Fashion-MNIST.")
@options.force
@options.as_json
def demo(out: Path, minutes: float, backend: str, data: Path | None, force: bool, as_json: bool) -> None:
    """Emit an attention net, train it on real images, convert and verify it, evaluate all formats, write a report.

    Before that, emit, check, measure and draw the zoo. Fashion-MNIST comes from Debian's package dataset-fashion-mnist;
    where that cannot be had, MNIST digits from a wheel of PyPI.
    """
    from prototxt_gen.demo.run_demo import Demo, as_data, run

    def say(text: str) -> None:
        click.echo(safe(text), err=True)

    story = run(Demo(out, minutes, backend, data, force, say=say, bar=bar))
    found = as_data(story)
    if as_json:
        echo_json(found)
        return
    for one in found["formats"]:
        result = one["not_run"] if one["accuracy"] is None else f"{one['accuracy']:.2%} right"
        click.echo(f"{one['format']:8} {one['runtime']:12} {safe(result)}")
    click.echo(f"images that the formats see differently: {found['differing']}")
    click.echo(f"report: {safe(str(out / 'report.html'))}")
