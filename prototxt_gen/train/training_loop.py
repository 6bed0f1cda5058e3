"""The training loop, the same for every backend. Source for its order: src/caffe/solver.cpp Solver::Step, Solve."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.train.backend import Backend, Step
from prototxt_gen.train.progress_display import Display, scores_text
from prototxt_gen.train.run_records import Recorder
from prototxt_gen.train.schedule import Schedule
from prototxt_gen.train.signals import Agree, Stop, Stopped
from prototxt_gen.train.snapshots import Snapshots


@dataclass
class Outcome:
    """How a run ended: after how many updates, with which snapshot, the last scores, and the pictures drawn."""

    iteration: int
    state: Path | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    exit_code: int = 0
    curves: list[Path] = field(default_factory=list)


class Keeper(Protocol):
    """What the loop hands its results to: everything in the first process, nothing in the others."""

    def stepped(self, step: Step, seconds: float) -> None: ...
    def tested(self, iteration: int, results: list[Mapping[str, float]]) -> Mapping[str, float]: ...
    def snapshot(self, backend: Backend) -> Path | None: ...


@dataclass
class Files:
    """The keeper of the first process: screen, metrics and snapshots."""

    recorder: Recorder
    snapshots: Snapshots
    display: Display

    def stepped(self, step: Step, seconds: float) -> None:
        """Take down and show one iteration."""
        self.recorder.stepped(step)
        self.display.stepped(step, self.recorder.smoothed(), seconds)

    def tested(self, iteration: int, results: list[Mapping[str, float]]) -> Mapping[str, float]:
        """Take down and show a test."""
        scores = self.recorder.tested(iteration, results)
        self.display.say(scores_text(iteration, scores))
        return scores

    def snapshot(self, backend: Backend) -> Path | None:
        """Write a snapshot."""
        if not self.recorder.flush():
            self.display.say(f"{self.recorder.path} was removed under way: it begins anew, without what came before")
        state = self.snapshots.save(backend)
        self.display.say(f"snapshot: {state}")
        return state


class Follower:
    """The keeper of the other processes of a run."""

    def stepped(self, step: Step, seconds: float) -> None:
        """Do nothing."""

    def tested(self, iteration: int, results: list[Mapping[str, float]]) -> Mapping[str, float]:
        """Keep nothing."""
        return {}

    def snapshot(self, backend: Backend) -> Path | None:
        """Write nothing."""
        return None


def train(backend: Backend, schedule: Schedule, keeper: Keeper) -> Outcome:
    """Train until max_iter or a signal; a run that a signal ends leaves a snapshot first."""
    agree: Agree | None = getattr(backend, "agree", None)
    with Stop(agree) as stop:
        outcome = Outcome(backend.iteration)
        while not stop.agreed and backend.iteration < schedule.max_iter:
            _test(backend, schedule, keeper, stop, outcome)
            if not stop.agreed:
                _step(backend, keeper, stop)
            if stop.agreed or schedule.snapshots_at(backend.iteration):
                outcome.state = keeper.snapshot(backend)
        if outcome.state is None and schedule.snapshots_at(backend.iteration):  # no step was left to run
            outcome.state = keeper.snapshot(backend)
        if not stop.agreed:
            _test(backend, schedule, keeper, stop, outcome)
        outcome.iteration, outcome.exit_code = backend.iteration, stop.exit_code
    return outcome


def _step(backend: Backend, keeper: Keeper, stop: Stop) -> None:
    started = time.monotonic()
    step = backend.step()
    keeper.stepped(step, time.monotonic() - started)
    _check_finite(step)
    stop.agree()


def _check_finite(step: Step) -> None:
    """Stop where the loss is no number: nor are then the gradients, so the weights are lost. Caffe would go on."""
    if not math.isfinite(step.loss):
        raise PrototxtGenError(
            f"the loss of iteration {step.iteration} is {step.loss:g}, and with it the weights are lost: try a lower "
            f"base_lr (the rate was {step.rate:g}) or clip_gradients, and look at the data; earlier snapshots stand"
        )


def _test(backend: Backend, schedule: Schedule, keeper: Keeper, stop: Stop, outcome: Outcome) -> None:
    """Run the test nets if they are due; a signal ends the test, whose part then counts for nothing."""
    if schedule.tests_at(backend.iteration):
        with suppress(Stopped):
            with stop.interruptible():
                results = backend.test()
            outcome.scores = keeper.tested(backend.iteration, results)
        stop.agree()
