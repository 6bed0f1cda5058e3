"""All nets of the zoo, each emitted, checked, measured and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen import checks
from prototxt_gen.analysis import analyse
from prototxt_gen.common import files
from prototxt_gen.draw.drawing import drawing
from prototxt_gen.draw.html import html_text
from prototxt_gen.models import GENERATED, model
from prototxt_gen.net.prototxt_reader import net_from_tree, read, read_text
from prototxt_gen.text import parse

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Member:
    """One net, as it is read back from its own prototxt; `macs` are those of one image.

    `problems` counts the errors that `check` finds in deploy and train_val; `folder` holds both, and the drawing.
    """

    name: str
    layers: int
    input: str
    parameters: int
    macs: int
    problems: int
    folder: Path


def zoo(
    folder: Path, force: bool, progress: Progress | None = None, names: Sequence[str] = tuple(GENERATED)
) -> list[Member]:
    """Write these nets, a folder each below `folder`, and return what was found of each."""
    made = []
    for index, name in enumerate(names, 1):
        made.append(_member(name, folder / name, force))
        if progress:
            progress(index, len(names))
    return made


def _member(name: str, folder: Path, force: bool) -> Member:
    model(name).write(folder, force=force)
    net = read(folder / "deploy.prototxt")
    analysis = analyse(net)
    files.write_text(folder / "drawing.html", html_text(drawing(analysis)), force)
    height, width = net.inputs[0].known_shape[2:]
    problems = _errors(folder / "deploy.prototxt") + _errors(folder / "train_val.prototxt")
    return Member(name, len(net.layers), f"{height}×{width}", analysis.parameters, analysis.macs, problems, folder)


def _errors(path: Path) -> int:
    """Return how many errors `check` finds in a prototxt."""
    tree = parse(read_text(path))
    found = checks.check_net(net_from_tree(tree, str(path)), tree)
    return sum(one.severity == checks.ERROR for one in found)
