"""Progress of a training run: a bar on a terminal, else a line at every `display` iterations, as Caffe prints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

import click

from prototxt_gen.common.progress import ProgressBar, is_terminal
from prototxt_gen.train.backend import Step
from prototxt_gen.train.schedule import Schedule

_MEMORY = 0.95
"""How much of the speed shown is of the steps before the last."""


class Speed:
    """Images a second and time left, from the steps alone: tests and snapshots do not count."""

    def __init__(self, images_per_step: int) -> None:
        self.images = images_per_step
        self.seconds = 0.0

    def took(self, seconds: float) -> None:
        """Take in how long a step took."""
        self.seconds = seconds if not self.seconds else _MEMORY * self.seconds + (1 - _MEMORY) * seconds

    @property
    def per_second(self) -> float:
        """Images a second; 0 where steps have no images."""
        return self.images / self.seconds if self.seconds else 0.0

    def left(self, steps: int) -> str:
        """Return the time that so many steps take, as `0:03:20`."""
        return str(timedelta(seconds=round(self.seconds * steps)))

    def words(self) -> str:
        """Return the speed as it is shown."""
        if self.images:
            return f"{self.per_second:.3g} images/s" if self.per_second < 1000 else f"{self.per_second:.0f} images/s"
        return f"{1 / self.seconds:.3g} it/s" if self.seconds else ""


class Display(Protocol):
    """Where a run is shown."""

    def stepped(self, step: Step, loss: float, seconds: float) -> None: ...
    def say(self, text: str) -> None: ...
    def close(self) -> None: ...


class Lines:
    """Lines on stderr."""

    def __init__(self, schedule: Schedule, speed: Speed) -> None:
        self.schedule, self.speed = schedule, speed

    def stepped(self, step: Step, loss: float, seconds: float) -> None:
        """Tell of a step, if `display` says so."""
        self.speed.took(seconds)
        if self.schedule.shows_at(step.iteration):
            left = self.speed.left(self.schedule.max_iter - step.iteration - 1)
            self.say(f"iteration {step.iteration}: loss {loss:.5g}, rate {step.rate:.4g}, {self.speed.words()}, "
                     f"{left} left")  # fmt: skip

    def say(self, text: str) -> None:
        """Print a line."""
        click.echo(text, err=True)

    def close(self) -> None:
        """Do nothing."""


class Bar:
    """A progress bar on a terminal, with the loss, the learning rate and the time left."""

    def __init__(self, schedule: Schedule, speed: Speed, iteration: int) -> None:
        self.schedule, self.speed = schedule, speed
        total, text = schedule.max_iter, "first step …"
        self.bar = ProgressBar(total=total, done=iteration, text=text).__enter__()
        self._shown = 0.0

    def stepped(self, step: Step, loss: float, seconds: float) -> None:
        """Move the bar."""
        self.speed.took(seconds)
        now = time.monotonic()
        if now - self._shown < 0.1 and step.iteration + 1 < self.schedule.max_iter:
            return
        self._shown = now
        done = step.iteration + 1
        left = self.speed.left(self.schedule.max_iter - done)
        text = f"loss {loss:.4g}  rate {step.rate:.3g}  {self.speed.words()}  {left} left"
        self.bar.update(done, text=text)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.bar.print(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


class Silence:
    """Nothing: for the processes beside the first."""

    def stepped(self, step: Step, loss: float, seconds: float) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def display(schedule: Schedule, images_per_step: int, iteration: int) -> Display:
    """Return a bar where stderr is a terminal, else lines."""
    speed = Speed(images_per_step)
    if is_terminal():
        return Bar(schedule, speed, iteration)
    return Lines(schedule, speed)


def scores_text(iteration: int, scores: Mapping[str, float]) -> str:
    """Return a test's scores as one line."""
    return f"iteration {iteration}, test: " + ", ".join(f"{name} {value:.5g}" for name, value in scores.items())
