"""`prototxt-gen draw`: draw a net as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.output import echo_files
from prototxt_gen.cli.read_net import read_net, shapes_from_options

FORMATS = ("html", "svg", "png", "dot")
"""Repeated from prototxt_gen.draw.draw_net, which is imported only when the command runs."""


@click.command(
    cls=Command,
    examples=["prototxt-gen draw net.prototxt -o net.html", "prototxt-gen draw net.prototxt -o net.svg --expand"],
)
@options.net_argument
@click.option("-o", "--output", type=options.OUTPUT_FILE, required=True, help="Output file; - is stdout.")
@click.option("--to", "form", type=click.Choice(FORMATS), show_default="the suffix of the output", help="Format.")
@click.option("--expand", is_flag=True,
              help="Draw every layer, instead of one block per first part of the layer names.")  # fmt: skip
@options.phase
@options.stage
@options.level
@options.input_size
@options.shape
@options.force
def draw(
    net: Path,
    output: Path,
    form: str | None,
    expand: bool,
    phase: str | None,
    stages: tuple[str, ...],
    level: int,
    size: str | None,
    shapes: tuple[str, ...],
    force: bool,
) -> None:
    """Draw NET. Layers are grouped by the parts of their names (conv2/1x1, conv2/3x3); HTML blocks open on a click."""
    from prototxt_gen.draw.draw_net import draw_net

    drawn = read_net(net, phase, stages, level)
    known = shapes_from_options(drawn, size, shapes)
    draw_net(drawn, output, expand=expand, shapes=known, format=form, force=force)
    echo_files([output])
