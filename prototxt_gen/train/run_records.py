"""All that is written down of a run while it goes: metrics.csv, TensorBoard events, and the curve at the end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from prototxt_gen.train import loss_curve
from prototxt_gen.train.backend import Step
from prototxt_gen.train.metrics_csv import Table
from prototxt_gen.train.schedule import Schedule
from prototxt_gen.train.tensorboard_events import open_events


class Recorder:
    """Writes into `folder`, from iteration `first` on; rows of an earlier run that come again are dropped."""

    def __init__(self, folder: Path, first: int, schedule: Schedule, title: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._table = Table(folder / "metrics.csv", first)
        self._events = open_events(folder, first)
        self._every = max(1, schedule.display)
        self._losses: deque[float] = deque(maxlen=schedule.average_loss)
        self._tested: tuple[int, Mapping[str, float]] | None = None
        self.title = title
        self._next = first

    @property
    def path(self) -> Path:
        """The name of metrics.csv."""
        return self._table.path

    def smoothed(self) -> float:
        """Return the mean loss of the last `average_loss` iterations, as Caffe shows it (UpdateSmoothedLoss)."""
        return math.fsum(self._losses) / len(self._losses)

    def stepped(self, step: Step) -> None:
        """Take down one iteration."""
        self._losses.append(step.loss)
        self._next = step.iteration + 1
        row = {"iteration": step.iteration, "loss": step.loss, "rate": step.rate}
        outputs = {f"train/{name}": value for name, value in step.outputs.items()}
        self._table.add(row | self._test_of(step.iteration) | outputs)
        if self._events and step.iteration % self._every == 0:
            self._events.add(step.iteration, {"loss": self.smoothed(), "rate": step.rate, **outputs})

    def tested(self, iteration: int, results: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
        """Take down a test before the step of `iteration`; return the scores by their names in the files."""
        scores = named(results)
        self._tested = (iteration, scores)
        if self._events:
            self._events.add(iteration, scores)
            self._events.flush()
        return scores

    def _test_of(self, iteration: int) -> dict[str, float]:
        """Return the scores that belong into the row of this iteration, once."""
        if self._tested is None or self._tested[0] != iteration:
            return {}
        scores, self._tested = dict(self._tested[1]), None
        return scores

    def flush(self) -> bool:
        """Put everything so far into the files; False where they have been removed, and are begun anew."""
        there = self.path.exists()
        if not there:
            self._table.begin_anew()
            self._events = open_events(self.path.parent, self._next)
        self._table.flush()
        if self._events:
            self._events.flush()
        return there

    def close(self) -> list[Path]:
        """Complete the files and draw the curve; return the pictures."""
        if self._tested is not None:
            iteration = self._tested[0]
            self._table.add({"iteration": iteration, **self._test_of(iteration)})
        for file in (self._table, self._events):
            if file is not None:
                file.close()
        try:
            return loss_curve.draw(self.path, self.path.parent, self.title)
        except ImportError:
            click.echo("no curve is drawn: it needs matplotlib (pip install matplotlib)", err=True)
            return []


def named(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the scores of all test nets by name: `test/accuracy`, or `test0/accuracy` where there are several nets."""
    many = len(results) > 1
    return {
        f"test{index if many else ''}/{name}": value
        for index, scores in enumerate(results)
        for name, value in scores.items()
    }
