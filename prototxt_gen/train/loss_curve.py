"""The curve of a run: its losses, and its test scores below them, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prototxt_gen.common import files
from prototxt_gen.train import metrics_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS, _MEANS = 1500, 100
Points = tuple[Sequence[float], Sequence[float]]


def draw(table: Path, folder: Path, title: str = "") -> list[Path]:
    """Draw `curve.png` and `curve.svg` from a metrics file; return them. None where there is nothing to draw.

    Raises ImportError where matplotlib is not installed.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = list(metrics_csv.read(table))
    lines = {name: points for name in _names(rows) if (points := _points(rows, name))[0]}
    losses = {name: line for name, line in lines.items() if "loss" in name}
    scores = {name: line for name, line in lines.items() if name not in losses}
    if not losses:
        return []
    with rc_context({"svg.hashsalt": "prototxt-gen"}):
        figure = Figure(figsize=(8, 4.5 if not scores else 7), layout="constrained")
        axes = figure.subplots(1 + bool(scores), 1, sharex=True, squeeze=False)[:, 0]
        _panel(axes[0], losses, title)
        if scores:
            _panel(axes[1], scores)
        axes[-1].set_xlabel("iteration")
        return [_save(figure, folder / f"curve.{form}") for form in ("png", "svg")]


def _names(rows: Iterable[metrics_csv.Row]) -> list[str]:
    """Return the columns to draw: the loss, and what the test nets put out."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name == "loss" or name.startswith("test")]


def _points(rows: Iterable[metrics_csv.Row], name: str) -> Points:
    found = [(int(row["iteration"]), float(row[name])) for row in rows if name in row]
    return _thinned(([x for x, _ in found], [y for _, y in found]), _MOST_POINTS)


def _thinned(points: Points, most: int) -> Points:
    """Return at most so many points, each the mean of as many neighbours."""
    xs, ys = points
    many = -(-len(xs) // most) or 1
    starts = range(0, len(xs), many)
    return [_mean(xs[at : at + many]) for at in starts], [_mean(ys[at : at + many]) for at in starts]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _panel(axes: Axes, lines: dict[str, Points], title: str = "") -> None:
    for name, points in lines.items():
        each = name == "loss"  # of every iteration: its mean is drawn over it
        axes.plot(*points, label="" if each else name, marker="" if each else ".", alpha=0.35 if each else 1)
        if each:
            axes.plot(*_thinned(points, _MEANS), label=name, color=axes.lines[-1].get_color())
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()


def _save(figure: Any, path: Path) -> Path:
    with files.replacing(path) as temporary:
        form = path.suffix[1:]
        dated = {"Date": None} if form == "svg" else {}
        figure.savefig(temporary, format=form, dpi=120, metadata=dated)
    return path
