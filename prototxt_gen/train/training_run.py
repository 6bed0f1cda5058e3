"""A whole training run: checks, memory estimate, resume or new start, training, and results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.net.fork_rules import ForkRules
from prototxt_gen.net.solver import Solver, read_solver
from prototxt_gen.train import progress_display
from prototxt_gen.train.backend import Backend, Settings, create
from prototxt_gen.train.run_checks import check_run
from prototxt_gen.train.run_records import RunRecorder
from prototxt_gen.train.schedule import Schedule
from prototxt_gen.train.snapshots import Snapshots
from prototxt_gen.train.training_loop import NoOutputs, RunFiles, TrainingOutcome, train

NEWEST = "newest"


@dataclass(frozen=True)
class TrainingJob:
    """The arguments of a training run.

    `resume` is the path of a .solverstate, or NEWEST for the latest one. `weights` are files to fine-tune from.
    `batch` replaces the batch size of the data layers of the train net. `restart` starts a new run although snapshots
    of an earlier run exist; they are moved to another folder. `crop_rule` and `anchor_rule` are those of `ForkRules`.
    """

    solver: Path
    backend: str = "torch"
    out: Path | None = None
    resume: str = ""
    weights: tuple[Path, ...] = ()
    max_iter: int | None = None
    snapshot_every: int | None = None
    restart: bool = False
    settings: Settings = field(default_factory=Settings)
    crop_rule: str | None = None
    anchor_rule: str | None = None
    batch: int | None = None

    def solver_with_overrides(self) -> Solver:
        """Return the solver from its file, with max_iter, snapshot, batch size and rules for its nets of the job."""
        solver = replace(read_solver(self.solver), rules=ForkRules(self.crop_rule, self.anchor_rule))
        changes = {"max_iter": self.max_iter, "snapshot": self.snapshot_every}
        overrides = {name: value for name, value in changes.items() if value is not None}
        return replace(solver, train_batch=self.batch, params=solver.params.replace(**overrides))


def is_first_process() -> bool:
    """Whether this process is the first of its run (torchrun sets RANK)."""
    return int(os.environ.get("RANK", "0")) == 0


def run(job: TrainingJob) -> TrainingOutcome:
    """Train and return the outcome. Raises PrototxtGenError for every failure; earlier snapshots remain."""
    solver = job.solver_with_overrides()
    snapshots = Snapshots.of(solver, job.out)
    state = _state_to_resume(job, snapshots)
    images = check_run(solver, job.backend, job.settings, job.out, _echo)
    with _backend(job, solver) as backend:
        for warning in getattr(backend, "warnings", ()):
            _echo(f"warning: {warning}")
        _load_start(job, solver, backend, state)
        if is_first_process() and (state is None or not snapshots.is_of_this_run(state)):
            _set_aside(snapshots)
        return _train_and_record(solver, snapshots, backend, images)


def _echo(text: str) -> None:
    if is_first_process():
        click.echo(text, err=True)


def _state_to_resume(job: TrainingJob, snapshots: Snapshots) -> Path | None:
    """Return the state to resume from, or None for a new run.

    Raises PrototxtGenError for contradictory arguments, and for a new run where an earlier run left its files.
    """
    if job.resume and job.weights:
        raise PrototxtGenError("a resumed run uses the weights of its snapshot: give --resume or --weights, not both")
    if job.resume and job.resume != NEWEST:
        return Path(job.resume)
    found = snapshots.newest_state() if job.resume else None
    if job.resume and found is None:
        where = snapshots.folder / snapshots.name
        raise PrototxtGenError(f"there is no complete snapshot {where}_iter_* to resume: leave out --resume")
    if is_first_process() and not job.resume and not job.restart and snapshots.states():
        raise PrototxtGenError(
            f"{snapshots.states()[0]} is of an earlier run: --resume continues it; --restart moves its files to "
            "another folder and starts at iteration 0; --output DIR writes to another folder"
        )
    return found


def _set_aside(snapshots: Snapshots) -> None:
    """Move the files of an earlier run of this name away before a new run, or one that continues another run's."""
    aside = snapshots.move_earlier_run_aside()
    if aside:
        _echo(f"the files of an earlier run are now in {aside}")


@contextmanager
def _backend(job: TrainingJob, solver: Solver) -> Iterator[Backend]:
    backend = create(job.backend, solver, job.settings)
    try:
        yield backend
    finally:
        backend.close()


def _load_start(job: TrainingJob, solver: Solver, backend: Backend, state: Path | None) -> None:
    """Load the state to resume from, or weights: those of the job, else those that the solver names."""
    if state is not None:
        backend.restore(state)
        _echo(f"resumed from {state}, at iteration {backend.iteration}")
        inexact_resume_warnings = getattr(backend, "inexact_resume_warnings", list)
        for line in inexact_resume_warnings():
            _echo(f"  {line}")
        return
    named = [name.strip() for names in solver.params.weights for name in names.split(",")]
    for path in job.weights or [solver.locate(name) for name in named]:
        lines = backend.load_weights(path)
        _echo("\n  ".join([f"weights from {path}:", *lines]))


def _train_and_record(solver: Solver, snapshots: Snapshots, backend: Backend, images: int) -> TrainingOutcome:
    schedule = Schedule.of(solver.params)
    if not is_first_process():
        return train(backend, schedule, NoOutputs())
    recorder = _recorder(snapshots, backend.iteration, schedule)
    display = progress_display.display(schedule, images * int(os.environ.get("WORLD_SIZE", "1")), backend.iteration)
    try:
        outcome = train(backend, schedule, RunFiles(recorder, snapshots, display))
    except OSError as error:
        raise PrototxtGenError(f"{error.filename or snapshots.folder}: {error.strerror or error}") from error
    finally:
        display.close()
        curves = _close_recorder(recorder)
    outcome.curves, outcome.metrics = curves, recorder.path
    return outcome


def _recorder(snapshots: Snapshots, first: int, schedule: Schedule) -> RunRecorder:
    """Return the recorder of the run. Raises PrototxtGenError if its folder is not writable."""
    try:
        return RunRecorder(snapshots.folder, snapshots.name, first, schedule)
    except OSError as error:
        raise PrototxtGenError(f"{snapshots.folder}: not writable: {error.strerror or error}") from error


def _close_recorder(recorder: RunRecorder) -> list[Path]:
    """Complete the records. A failure is only printed: the weights are safe, and another error may be pending."""
    try:
        return recorder.close()
    except (OSError, PrototxtGenError) as error:
        _echo(f"metrics and curve are not complete: {error}")
        return []
