"""`prototxt-gen draw`: draw a net as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.read_net import read_net, shapes_from_options
from prototxt_gen.common.errors import PrototxtGenError

if TYPE_CHECKING:
    from prototxt_gen.draw.drawing import Drawing

FORMATS = (".svg", ".png", ".dot", ".html")


@click.command(
    cls=Command,
    examples=["prototxt-gen draw net.prototxt -o net.html", "prototxt-gen draw net.prototxt -o net.svg --expand"],
)
@options.net_argument
@click.option("-o", "--output", type=options.FILE, required=True,
              help=f"Output file; the name ends in {', '.join(FORMATS)}.")  # fmt: skip
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
    expand: bool,
    phase: str | None,
    stages: tuple[str, ...],
    level: int,
    size: str | None,
    shapes: tuple[str, ...],
    force: bool,
) -> None:
    """Draw NET. Layers are grouped by the parts of their names (conv2/1x1, conv2/3x3); HTML blocks open on a click."""
    from prototxt_gen.analysis import analyse
    from prototxt_gen.common.files import refuse_overwriting, replacing
    from prototxt_gen.draw.drawing import make_drawing

    suffix = output.suffix.lower()
    if suffix not in FORMATS:
        raise PrototxtGenError(f"{output}: the name must end in {', '.join(FORMATS)}")
    refuse_overwriting([output], force)
    one = read_net(net, phase, stages, level)
    made = make_drawing(analyse(one, shapes_from_options(one, size, shapes)))
    with replacing(output, force) as temporary:
        temporary.write_bytes(_content(made, suffix, expand))
    click.echo(output)


def _content(made: Drawing, suffix: str, expand: bool) -> bytes:
    """Return the file's content in the format of its suffix."""
    if suffix == ".html":
        from prototxt_gen.draw.html import html_text

        return html_text(made, expand).encode("utf-8", "backslashreplace")
    from prototxt_gen.draw.dot import dot_text, render_with_graphviz

    if suffix == ".dot":
        return dot_text(made, expand).encode()
    return render_with_graphviz(made, suffix[1:], expand)
