"""The loss curve of a run, with the test scores below it, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prototxt_gen.common import files
from prototxt_gen.train import metrics_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_POINTS, _SMOOTHED_POINTS = 1500, 100
Points = tuple[Sequence[float], Sequence[float]]


def draw_curve(table: Path, pictures: Sequence[Path], title: str = "") -> list[Path]:
    """Draw the curve of a table of metrics into .png and .svg files; return their paths, or [] if it has no losses.

    Raises ImportError if matplotlib is not installed.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = list(metrics_csv.read_metrics(table))
    lines = {name: points for name in _drawn_columns(rows) if (points := _points(rows, name))[0]}
    losses = {name: line for name, line in lines.items() if "loss" in name}
    scores = {name: line for name, line in lines.items() if name not in losses}
    if not losses:
        return []
    with rc_context({"svg.hashsalt": "prototxt-gen"}):
        figure = Figure(figsize=(8, 4.5 if not scores else 7), layout="constrained")
        axes = figure.subplots(1 + bool(scores), 1, sharex=True, squeeze=False)[:, 0]
        _draw_panel(axes[0], losses, title)
        if scores:
            _draw_panel(axes[1], scores)
        axes[-1].set_xlabel("iteration")
        return [_save(figure, picture) for picture in pictures]


def _drawn_columns(rows: Iterable[metrics_csv.Row]) -> list[str]:
    """Return the columns to draw: the loss and the outputs of the test nets."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name == "loss" or name.startswith("test")]


def _points(rows: Iterable[metrics_csv.Row], name: str) -> Points:
    found = [(int(row["iteration"]), float(row[name])) for row in rows if name in row]
    return _averaged(([x for x, _ in found], [y for _, y in found]), _MAX_POINTS)


def _averaged(points: Points, max_points: int) -> Points:
    """Return at most `max_points` points, each the mean of equally many neighbouring points."""
    xs, ys = points
    points_per_mean = -(-len(xs) // max_points) or 1
    parts = [slice(start, start + points_per_mean) for start in range(0, len(xs), points_per_mean)]
    return [_mean(xs[part]) for part in parts], [_mean(ys[part]) for part in parts]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _draw_panel(axes: Axes, lines: dict[str, Points], title: str = "") -> None:
    for name, points in lines.items():
        is_loss = name == "loss"  # the loss of every iteration: its running mean is drawn over it
        axes.plot(*points, label="" if is_loss else name, marker="" if is_loss else ".", alpha=0.35 if is_loss else 1)
        if is_loss:
            axes.plot(*_averaged(points, _SMOOTHED_POINTS), label=name, color=axes.lines[-1].get_color())
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()


def _save(figure: Any, path: Path) -> Path:
    with files.replacing(path) as temporary:
        extension = path.suffix[1:]
        metadata = {"Date": None} if extension == "svg" else {}
        figure.savefig(temporary, format=extension, dpi=120, metadata=metadata)
    return path
