"""A backend for tests of the training loop, which only counts iterations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen import caffemodel
from prototxt_gen.caffemodel import NewLayer
from prototxt_gen.schema.caffe_proto import SolverParameter
from prototxt_gen.train import progress_display
from prototxt_gen.train.backend import Step
from prototxt_gen.train.run_records import RunRecorder
from prototxt_gen.train.schedule import Schedule
from prototxt_gen.train.snapshots import Snapshots
from prototxt_gen.train.training_loop import RunFiles, TrainingOutcome, train


class Counter:
    """A backend whose only weight is the number of its steps; `calls` lists the methods that were called."""

    def __init__(self, at_step: Callable[[int], None] = lambda iteration: None) -> None:
        self.iteration = 0
        self.calls: list[str] = []
        self.at_step = at_step
        self.at_test: Callable[[], None] = lambda: None

    def step(self) -> Step:
        self.calls.append("step")
        self.at_step(self.iteration)
        self.iteration += 1
        return Step(self.iteration - 1, 1 / self.iteration, 0.1, {"loss": 1 / self.iteration})

    def test(self) -> list[Mapping[str, float]]:
        self.calls.append(f"test {self.iteration}")
        self.at_test()
        return [{"accuracy": self.iteration / 100}]

    def snapshot(self, weights: Path, state: Path) -> None:
        self.calls.append(f"snapshot {self.iteration}")
        caffemodel.write(weights, [NewLayer("ip", "InnerProduct", [np.full((1, 1), self.iteration)])], force=True)
        caffemodel.write_solverstate(
            state, iter=self.iteration, learned_net="x", history=[np.zeros((1, 1))], force=True
        )

    def restore(self, state: Path) -> None:
        self.iteration = caffemodel.read_solverstate(state).iter

    def load_weights(self, path: Path) -> list[str]:
        return []

    def close(self) -> None:
        self.calls.append("close")


def run(backend: Counter, folder: Path, **fields: Any) -> TrainingOutcome:
    """Train with these solver fields and return the outcome."""
    plan = Schedule.of(SolverParameter(**{"max_iter": 10, **fields}))
    recorder = RunRecorder(folder, "n", backend.iteration, plan)
    display = progress_display.Lines(plan, progress_display.Speed(4))
    try:
        return train(backend, plan, RunFiles(recorder, Snapshots(folder, "n"), display))
    finally:
        recorder.close()
