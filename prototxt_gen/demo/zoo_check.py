"""Emits, checks, measures and draws all nets of the zoo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen import checks
from prototxt_gen.analysis import analyse
from prototxt_gen.common import files
from prototxt_gen.draw.drawing import make_drawing
from prototxt_gen.draw.html import html_text
from prototxt_gen.models import GENERATED, model
from prototxt_gen.net.prototxt_reader import net_from_tree, read_net, read_prototxt_bytes
from prototxt_gen.text import parse

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ZooNet:
    """A net of the zoo as read from its emitted prototxt; `macs` is for one image.

    `problems` is the number of errors that `check` finds in deploy and train_val; `folder` has both and the drawing.
    """

    name: str
    layers: int
    input: str
    parameters: int
    macs: int
    problems: int
    folder: Path


def check_zoo(
    folder: Path, force: bool, progress: Progress | None = None, names: Sequence[str] = tuple(GENERATED)
) -> list[ZooNet]:
    """Emit, check and draw these nets, each in its own folder inside `folder`, and return the results."""
    made = []
    for index, name in enumerate(names, 1):
        made.append(_check_zoo_net(name, folder / name, force))
        if progress:
            progress(index, len(names))
    return made


def _check_zoo_net(name: str, folder: Path, force: bool) -> ZooNet:
    model(name).write(folder, force=force)
    net = read_net(folder / "deploy.prototxt")
    analysis = analyse(net)
    files.write_text(folder / "drawing.html", html_text(make_drawing(analysis)), force)
    height, width = net.inputs[0].known_shape[2:]
    problems = _error_count(folder / "deploy.prototxt") + _error_count(folder / "train_val.prototxt")
    return ZooNet(name, len(net.layers), f"{height}×{width}", analysis.parameters, analysis.macs, problems, folder)


def _error_count(path: Path) -> int:
    """Return the number of errors that `check` finds in a prototxt."""
    tree = parse(read_prototxt_bytes(path))
    found = checks.check_net(net_from_tree(tree, str(path)), tree)
    return sum(one.severity == checks.ERROR for one in found)
