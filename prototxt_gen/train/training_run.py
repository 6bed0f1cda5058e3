"""A whole training run: check, estimate, resume or start, train, and say how it ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from prototxt_gen.analysis import analyse
from prototxt_gen.checks import ERROR, check_solver
from prototxt_gen.common.errors import NetError, PrototxtGenError
from prototxt_gen.ir import Net, Shape
from prototxt_gen.net.phase_rules import is_loss
from prototxt_gen.net.solver import Solver, read_solver
from prototxt_gen.train import memory_estimate, progress_display
from prototxt_gen.train.backend import Backend, Settings, create
from prototxt_gen.train.data_shapes import batch_size, data_shapes
from prototxt_gen.train.run_records import Recorder
from prototxt_gen.train.schedule import Schedule
from prototxt_gen.train.snapshots import Snapshots
from prototxt_gen.train.training_loop import Files, Follower, Outcome, train

NEWEST = "newest"


@dataclass(frozen=True)
class Job:
    """What the command line asks for. `resume` is a .solverstate, or NEWEST; `weights` are files to fine-tune from.

    `restart` starts a new run where an earlier run's snapshots are, which are moved to another folder.
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

    def read(self) -> Solver:
        """Return the solver with what the job overrides."""
        solver = read_solver(self.solver)
        changes = {"max_iter": self.max_iter, "snapshot": self.snapshot_every}
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(solver, params=solver.params.replace(**given))


def is_first() -> bool:
    """Whether this process is the first of its run: torchrun numbers them in RANK."""
    return int(os.environ.get("RANK", "0")) == 0


def run(job: Job) -> Outcome:
    """Train. PrototxtGenError, in one sentence, for whatever stops it; the snapshots before that stay."""
    solver = job.read()
    snapshots = Snapshots.of(solver, job.out)
    state = _state_to_resume(job, snapshots)
    images = _checked(solver, job)
    with _backend(job, solver) as backend:
        _begin(job, solver, backend, state)
        if state is None and is_first():
            _set_aside(snapshots)
        return _train(solver, snapshots, backend, images)


def _say(text: str) -> None:
    if is_first():
        click.echo(text, err=True)


def _state_to_resume(job: Job, snapshots: Snapshots) -> Path | None:
    """Return the state to go on from, None for a new run; refuse to mix that with an earlier one in the same place."""
    if job.resume and job.weights:
        raise PrototxtGenError(
            "a run is resumed with the weights of its snapshot: give --resume or --weights, not both"
        )
    if job.resume and job.resume != NEWEST:
        return Path(job.resume)
    found = snapshots.newest() if job.resume else None
    if job.resume and found is None:
        where = snapshots.folder / snapshots.name
        raise PrototxtGenError(f"there is no complete snapshot {where}_iter_* to resume: leave out --resume")
    if is_first() and not job.resume and not job.restart and snapshots.all():
        raise PrototxtGenError(
            f"{snapshots.all()[0]} is of an earlier run: --resume continues it; --restart moves its files to another "
            "folder and starts at iteration 0; --output DIR writes to another folder"
        )
    return found


def _set_aside(snapshots: Snapshots) -> None:
    """Make layer type for a new run."""
    aside = snapshots.set_aside()
    if aside:
        _say(f"the files of an earlier run are now in {aside}")


def _checked(solver: Solver, job: Job) -> int:
    """Check solver, nets and data; say what memory it takes; return the images of one iteration."""
    shapes: dict[str, dict[str, Shape]] = {}

    def given(net: Net) -> dict[str, Shape]:
        key = repr([layer.name for layer in net.layers])
        if key not in shapes:
            shapes[key] = data_shapes(net, solver.locate)
        return shapes[key]

    net, tests = solver.train_net(), solver.test_nets()
    problems = check_solver(solver, given=given)
    faults = [problem for problem in problems if problem.severity == ERROR]
    if faults:
        raise PrototxtGenError("\n  ".join([f"{solver.source} cannot be trained:", *map(_told, faults)]))
    for problem in problems:
        if problem.code == "unknown-field":
            _say(f"warning: {problem.source or solver.source}: {problem}")
    if not any(map(is_loss, net.layers)):
        raise NetError(f"{net.source or net.name}: it has no loss in phase TRAIN, so there is nothing to train")
    batch = batch_size(net, given(net))
    analyses = [analyse(each, given(each)) for each in (net, *tests)]
    needed = memory_estimate.estimate(analyses[0], analyses[1:], solver.type, batch)
    if job.settings.gpu is None and batch:
        _say(needed.words(memory_estimate.free_memory()))
    return batch * solver.params.iter_size


def _told(problem: object) -> str:
    source = getattr(problem, "source", "")
    return f"{source}: {problem}" if source else str(problem)


@contextmanager
def _backend(job: Job, solver: Solver) -> Iterator[Backend]:
    backend = create(job.backend, solver, job.settings)
    try:
        yield backend
    finally:
        backend.close()


def _begin(job: Job, solver: Solver, backend: Backend, state: Path | None) -> None:
    """Take over the state to resume, or weights: those of the job, else those that the solver names."""
    if state is not None:
        backend.restore(state)
        _say(f"resumed from {state}, at iteration {backend.iteration}")
        remarks = getattr(backend, "remarks", list)
        for line in remarks():
            _say(f"  {line}")
        return
    named = [name.strip() for names in solver.params.weights for name in names.split(",")]
    for path in job.weights or [solver.locate(name) for name in named]:
        lines = backend.load_weights(path)
        _say("\n  ".join([f"weights from {path}:", *lines]))


def _train(solver: Solver, snapshots: Snapshots, backend: Backend, images: int) -> Outcome:
    schedule = Schedule.of(solver.params)
    if not is_first():
        return train(backend, schedule, Follower())
    recorder = _recorder(snapshots, backend.iteration, schedule)
    display = progress_display.display(schedule, images * int(os.environ.get("WORLD_SIZE", "1")), backend.iteration)
    try:
        outcome = train(backend, schedule, Files(recorder, snapshots, display))
    except OSError as error:
        raise PrototxtGenError(f"{error.filename or snapshots.folder}: {error.strerror or error}") from error
    finally:
        display.close()
        curves = _closed(recorder)
    outcome.curves = curves
    return outcome


def _recorder(snapshots: Snapshots, first: int, schedule: Schedule) -> Recorder:
    """Return what takes the run down; PrototxtGenError where the folder of its files cannot be written to."""
    try:
        return Recorder(snapshots.folder, first, schedule, snapshots.name)
    except OSError as error:
        raise PrototxtGenError(f"{snapshots.folder}: it cannot be written to: {error.strerror or error}") from error


def _closed(recorder: Recorder) -> list[Path]:
    """Complete what was recorded; where that fails, the weights are safe, and another error may be on its way."""
    try:
        return recorder.close()
    except (OSError, PrototxtGenError) as error:
        _say(f"metrics and curve are not complete: {error}")
        return []
