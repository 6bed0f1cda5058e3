"""The records of a training run: a table of metrics, TensorBoard events, and the loss curve at the end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from prototxt_gen.train import loss_curve
from prototxt_gen.train.backend import Step
from prototxt_gen.train.metrics_csv import MetricsTable
from prototxt_gen.train.run_record_names import run_record_names
from prototxt_gen.train.schedule import Schedule
from prototxt_gen.train.tensorboard_events import open_event_file


class RunRecorder:
    """Writes the records into `folder`, with names that begin with `name`, which is also the title of the curve.

    Rows that an earlier run of this name wrote from iteration `first` on are removed.
    """

    def __init__(self, folder: Path, name: str, first: int, schedule: Schedule) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self._names = name, run_record_names(name)
        self._table = MetricsTable(folder / self._names.metrics, first)
        self._events = open_event_file(folder / self._names.events, first)
        self._event_interval = max(1, schedule.display)
        self._losses: deque[float] = deque(maxlen=schedule.average_loss)
        self._tested: tuple[int, Mapping[str, float]] | None = None
        self._next = first

    @property
    def path(self) -> Path:
        """The path of the table of metrics."""
        return self._table.path

    def smoothed_loss(self) -> float:
        """Return the mean loss of the last `average_loss` iterations, as Caffe shows it (UpdateSmoothedLoss)."""
        return math.fsum(self._losses) / len(self._losses)

    def record_step(self, step: Step) -> None:
        """Record one iteration."""
        self._losses.append(step.loss)
        self._next = step.iteration + 1
        row = {"iteration": step.iteration, "loss": step.loss, "rate": step.rate}
        outputs = {f"train/{name}": value for name, value in step.outputs.items()}
        self._table.add(row | self._pending_scores(step.iteration) | outputs)
        if self._events and step.iteration % self._event_interval == 0:
            self._events.add(step.iteration, {"loss": self.smoothed_loss(), "rate": step.rate, **outputs})

    def record_test(self, iteration: int, results: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
        """Record a test before the step of `iteration`; return the scores by their names in the files."""
        scores = named_scores(results)
        self._tested = (iteration, scores)
        if self._events:
            self._events.add(iteration, scores)
            self._events.flush()
        return scores

    def _pending_scores(self, iteration: int) -> dict[str, float]:
        """Return the test scores that belong to the row of this iteration, once; else nothing."""
        if self._tested is None or self._tested[0] != iteration:
            return {}
        scores, self._tested = dict(self._tested[1]), None
        return scores

    def flush(self) -> bool:
        """Flush all files. Returns False if the table had been removed, in which case new files are started."""
        existed = self.path.exists()
        if not existed:
            self._table.start_new_file()
            self._events = open_event_file(self.path.parent / self._names.events, self._next)
        self._table.flush()
        if self._events:
            self._events.flush()
        return existed

    def close(self) -> list[Path]:
        """Complete the files, draw the curve, and return the paths of its pictures."""
        if self._tested is not None:
            iteration = self._tested[0]
            self._table.add({"iteration": iteration, **self._pending_scores(iteration)})
        for file in (self._table, self._events):
            if file is not None:
                file.close()
        try:
            pictures = self._names.curve_png, self._names.curve_svg
            return loss_curve.draw_curve(self.path, [self.path.parent / picture for picture in pictures], self.name)
        except ImportError:
            click.echo("no curve is drawn: it needs matplotlib (pip install matplotlib)", err=True)
            return []


def named_scores(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the scores of all test nets by name: `test/accuracy`, or `test0/accuracy` if there are several nets."""
    several_nets = len(results) > 1
    return {
        f"test{index if several_nets else ''}/{name}": value
        for index, scores in enumerate(results)
        for name, value in scores.items()
    }
