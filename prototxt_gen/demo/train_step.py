"""The step of the demo that trains the net."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.demo.results import TrainingResult


def train(net: Path, backend: str, force: bool) -> TrainingResult:
    """Train the net in folder `net` with its solver. Raises PrototxtGenError if training is stopped.

    Training runs in that folder, since the net and the data that the solver names could exist in another one too.
    """
    from prototxt_gen.train.backend import Settings
    from prototxt_gen.train.snapshots import weights_of_state
    from prototxt_gen.train.training_run import TrainingJob, run

    started = time.monotonic()
    out = Path("snapshots")
    with working_folder(net):
        outcome = run(TrainingJob(Path("solver.prototxt"), backend, out, restart=force, settings=Settings(workers=0)))
        state = outcome.state
        weights = net / weights_of_state(state) if state is not None else None
    if outcome.exit_code or weights is None or outcome.metrics is None:
        raise PrototxtGenError(f"training was stopped at iteration {outcome.iteration}, so there is no report")
    return TrainingResult(net / outcome.metrics, weights, outcome.iteration, time.monotonic() - started)


@contextmanager
def working_folder(folder: Path) -> Iterator[None]:
    """Make a folder the working folder of this process within the block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
