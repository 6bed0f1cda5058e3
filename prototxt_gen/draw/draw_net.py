"""`draw_net`: write a net as a picture file."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.files import refuse_overwriting, replacing
from prototxt_gen.draw.drawing import Drawing, make_drawing
from prototxt_gen.ir import Net, Shape

FORMATS = ("html", "svg", "png", "dot")


def draw_net(
    net: Net,
    output: str | PathLike[str],
    *,
    expand: bool = False,
    shapes: Mapping[str, Shape] | None = None,
    format: str | None = None,
    force: bool = False,
) -> Path:
    """Draw a net of one phase to a file, and return its path.

    The name ends in .html, .svg, .png or .dot, or `format` says which one is written.

    Layers are grouped by the slash-separated parts of their names; `expand` draws every layer by itself. `shapes` gives
    the shape N×C×H×W of inputs that the net does not declare, by blob. An existing file is overwritten with `force`.
    Raises PrototxtGenError for another ending, an existing file, or SVG and PNG without graphviz's program `dot`.
    """
    path = Path(output)
    format = format or path.suffix.lower()[1:]
    if format not in FORMATS:
        raise PrototxtGenError(f"{path}: the name must end in .{', .'.join(FORMATS)}; or say with --to what is written")
    refuse_overwriting([path], force)
    content = _content(make_drawing(analyse(net, shapes)), format, expand)
    with replacing(path, force) as temporary:
        temporary.write_bytes(content)
    return path


def _content(picture: Drawing, format: str, expand: bool) -> bytes:
    """Return the file's content in one of FORMATS."""
    if format == "html":
        from prototxt_gen.draw.html import html_text

        return html_text(picture, expand).encode("utf-8", "backslashreplace")
    from prototxt_gen.draw.dot import dot_text, render_with_graphviz

    if format == "dot":
        return dot_text(picture, expand).encode()
    return render_with_graphviz(picture, format, expand)
