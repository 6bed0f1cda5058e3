"""`prototxt-gen draw`: a net as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from prototxt_gen.cli import options
from prototxt_gen.common.errors import PrototxtGenError

FORMATS = (".svg", ".png", ".dot", ".html")


@click.command()
@options.net_argument
@click.option("-o", "--output", type=options.FILE, required=True, help=f"The file to write: {', '.join(FORMATS)}.")
@click.option("--expand", is_flag=True, help="Every layer, in its scopes; else a block for each top scope.")
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
    """Draw NET, grouped by the slash-separated parts of its layer names. In HTML every block opens on a click."""
    from prototxt_gen.analysis import analyse
    from prototxt_gen.common.files import refuse_overwriting, replacing
    from prototxt_gen.draw.drawing import drawing

    format_ = output.suffix.lower()
    if format_ not in FORMATS:
        raise PrototxtGenError(f"{output}: the name must end in {', '.join(FORMATS)}")
    refuse_overwriting([output], force)
    one = options.read_net(net, phase, stages, level)
    made = drawing(analyse(one, options.given_shapes(one, size, shapes)))
    with replacing(output, force) as temporary:
        temporary.write_bytes(_content(made, format_, expand))
    click.echo(output)


def _content(made: object, format_: str, expand: bool) -> bytes:
    from prototxt_gen.draw.drawing import Drawing

    assert isinstance(made, Drawing)
    if format_ == ".html":
        from prototxt_gen.draw.html import html_text

        return html_text(made, expand).encode("utf-8", "backslashreplace")
    from prototxt_gen.draw.dot import dot_text, rendered

    if format_ == ".dot":
        return dot_text(made, expand).encode()
    return rendered(made, format_[1:], expand)
