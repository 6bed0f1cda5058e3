"""Line charts in SVG coordinates: paths, ticks and positions, which a template draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Points = Sequence[tuple[float, float]]
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 30
_TICKS = 5


@dataclass(frozen=True)
class Line:
    """One curve of a chart. `points` are (x, y); `dots` marks them, `faint` draws the curve in a light colour."""

    name: str
    points: Points
    colour: str
    dots: bool = False
    faint: bool = False


@dataclass(frozen=True)
class DrawnLine:
    """A curve in SVG coordinates: the attribute `d` of its path, dots (x, y, tooltip), and its last point."""

    line: Line
    path: str
    dots: Sequence[tuple[float, float, str]]
    end: tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart of `width` × `height`; `left`, `right`, `top` and `bottom` are the edges of the plotting area.

    `across` are the ticks of the x axis, `up` those of the y axis.
    """

    width: int
    height: int
    lines: Sequence[DrawnLine]
    across: Sequence[Tick]
    up: Sequence[Tick]
    left: float = _LEFT
    top: float = _TOP

    @property
    def right(self) -> float:
        return self.width - _RIGHT

    @property
    def bottom(self) -> float:
        return self.height - _BOTTOM


def line_chart(lines: Iterable[Line], width: int = 540, height: int = 260, percent: bool = False) -> Chart:
    """Return a chart of all lines that have points, on common axes; `percent` formats values as percentages."""
    shown = [line for line in lines if line.points]
    xs = [x for line in shown for x, _ in line.points]
    ys = [y for line in shown for _, y in line.points]
    across, up = (
        tick_values(min(xs, default=0), max(xs, default=1)),
        tick_values(min(ys, default=0), max(ys, default=1)),
    )
    x_at = _scale_to((min(xs, default=0), max(xs, default=1)), (_LEFT, width - _RIGHT))
    y_at = _scale_to((up[0], up[-1]), (height - _BOTTOM, _TOP))
    inside = [value for value in across if min(xs, default=0) <= value <= max(xs, default=1)]
    return Chart(
        width,
        height,
        [_drawn_line(line, x_at, y_at, percent) for line in shown],
        [Tick(x_at(value), f"{value:,g}") for value in inside],
        [Tick(y_at(value), _value_text(value, percent)) for value in up],
    )


def _value_text(value: float, percent: bool) -> str:
    return f"{round(100 * value, 8):g} %" if percent else f"{round(value, 10):g}"


def _drawn_line(line: Line, x_at: _Scale, y_at: _Scale, percent: bool) -> DrawnLine:
    placed = [(x_at(x), y_at(y)) for x, y in line.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
    texts = [f"{x:,g}: {y:.2%}" if percent else f"{x:,g}: {y:.4g}" for x, y in line.points]
    dots = [(x, y, text) for (x, y), text in zip(placed, texts, strict=True)] if line.dots else []
    return DrawnLine(line, path, dots, placed[-1])


@dataclass(frozen=True)
class _Scale:
    low: float
    start: float
    factor: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * self.factor


def _scale_to(values: tuple[float, float], places: tuple[float, float]) -> _Scale:
    span = values[1] - values[0] or 1.0
    return _Scale(values[0], places[0], (places[1] - places[0]) / span)


def tick_values(low: float, high: float, about: int = _TICKS) -> list[float]:
    """Return evenly spaced round numbers that cover `low` to `high`, with about `about` steps."""
    span = high - low if high > low else abs(high) or 1.0
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * index for index in range(first, max(last, first + 1) + 1)]


def smoothed(points: Points, weight: float = 0.95) -> list[tuple[float, float]]:
    """Return the exponential moving average of the points, in which each new point has weight `1 - weight`.

    The first values are corrected for the missing earlier points, as in Adam.
    """
    made, sum_, known = [], 0.0, 0.0
    for x, y in points:
        sum_, known = weight * sum_ + (1 - weight) * y, weight * known + (1 - weight)
        made.append((x, sum_ / known))
    return made


def thinned(points: Points, most: int = 400) -> list[tuple[float, float]]:
    """Return at most `most` + 1 evenly spaced points, among them the last."""
    step = -(-len(points) // most) or 1
    kept = list(points[::step])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]
