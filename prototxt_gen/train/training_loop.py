"""The training loop that all backends share. Source of its order: src/caffe/solver.cpp Solver::Step, Solver::Solve."""

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
from prototxt_gen.train.run_records import RunRecorder
from prototxt_gen.train.schedule import Schedule
from prototxt_gen.train.signals import MaxOverProcesses, StopSignal, TestInterrupted
from prototxt_gen.train.snapshots import Snapshots


@dataclass
class TrainingOutcome:
    """The end of a run: number of updates, last solver state, last test scores, exit code, and files of the records.

    `tested_at` is the number of updates before the test that gave the scores, None if nothing was tested.
    """

    iteration: int
    state: Path | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    exit_code: int = 0
    curves: list[Path] = field(default_factory=list)
    metrics: Path | None = None
    tested_at: int | None = None


class ResultKeeper(Protocol):
    """Receives the results of the training loop. The first process stores them, the other processes ignore them."""

    def step_done(self, step: Step, seconds: float) -> None: ...
    def test_done(self, iteration: int, results: list[Mapping[str, float]]) -> Mapping[str, float]: ...
    def snapshot(self, backend: Backend) -> Path | None: ...


@dataclass
class RunFiles:
    """The ResultKeeper of the first process: writes metrics and snapshots, and shows progress."""

    recorder: RunRecorder
    snapshots: Snapshots
    display: Display

    def step_done(self, step: Step, seconds: float) -> None:
        """Record and show one iteration."""
        self.recorder.record_step(step)
        self.display.stepped(step, self.recorder.smoothed_loss(), seconds)

    def test_done(self, iteration: int, results: list[Mapping[str, float]]) -> Mapping[str, float]:
        """Record and show the scores of a test, and return them by name."""
        scores = self.recorder.record_test(iteration, results)
        self.display.say(scores_text(iteration, scores))
        return scores

    def snapshot(self, backend: Backend) -> Path | None:
        """Write a snapshot and return the path of its solver state."""
        if not self.recorder.flush():
            self.display.say(f"{self.recorder.path} was removed during training: a new file begins here")
        state = self.snapshots.save(backend)
        self.display.say(f"snapshot: {state}")
        return state


class NoOutputs:
    """The ResultKeeper of the other processes of a run: ignores all results."""

    def step_done(self, step: Step, seconds: float) -> None:
        """Do nothing."""

    def test_done(self, iteration: int, results: list[Mapping[str, float]]) -> Mapping[str, float]:
        """Return no scores."""
        return {}

    def snapshot(self, backend: Backend) -> Path | None:
        """Write nothing."""
        return None


def train(backend: Backend, schedule: Schedule, keeper: ResultKeeper) -> TrainingOutcome:
    """Train until max_iter or until a signal (Ctrl-C, SIGTERM). After a signal, a snapshot is written first."""
    max_over_processes: MaxOverProcesses | None = getattr(backend, "max_over_processes", None)
    with StopSignal(max_over_processes) as stop:
        outcome = TrainingOutcome(backend.iteration)
        while not stop.agreed_signal and backend.iteration < schedule.max_iter:
            _test_if_due(backend, schedule, keeper, stop, outcome)
            if not stop.agreed_signal:
                _step(backend, keeper, stop)
            if stop.agreed_signal or schedule.snapshots_at(backend.iteration):
                outcome.state = keeper.snapshot(backend)
        if outcome.state is None and schedule.snapshots_at(backend.iteration):  # no step was left to run
            outcome.state = keeper.snapshot(backend)
        if not stop.agreed_signal:
            _test_if_due(backend, schedule, keeper, stop, outcome)
        outcome.iteration, outcome.exit_code = backend.iteration, stop.exit_code
    return outcome


def _step(backend: Backend, keeper: ResultKeeper, stop: StopSignal) -> None:
    started = time.monotonic()
    step = backend.step()
    keeper.step_done(step, time.monotonic() - started)
    _check_finite(step)
    stop.agree()


def _check_finite(step: Step) -> None:
    """Raise PrototxtGenError if the loss is NaN or infinite: then the weights are lost. Caffe would continue."""
    if not math.isfinite(step.loss):
        raise PrototxtGenError(
            f"the loss of iteration {step.iteration} is {step.loss:g}, and with it the weights are lost: try a lower "
            f"base_lr (the rate was {step.rate:g}) or clip_gradients, and check the data; earlier snapshots are intact"
        )


def _test_if_due(
    backend: Backend, schedule: Schedule, keeper: ResultKeeper, stop: StopSignal, outcome: TrainingOutcome
) -> None:
    """Run the test nets if a test is due. A signal interrupts the test, and its partial result is discarded."""
    if schedule.tests_at(backend.iteration):
        with suppress(TestInterrupted):
            with stop.interruptible():
                results = backend.test()
            outcome.scores = keeper.test_done(backend.iteration, results)
            outcome.tested_at = backend.iteration
        stop.agree()
