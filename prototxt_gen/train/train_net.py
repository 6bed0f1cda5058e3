"""`train_net`: train a net from Python, as `prototxt-gen train` does."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

from prototxt_gen.train.backend import Settings
from prototxt_gen.train.training_loop import TrainingOutcome
from prototxt_gen.train.training_run import NEWEST, TrainingJob, run


def train_net(
    solver: str | PathLike[str],
    output: str | PathLike[str] | None = None,
    *,
    backend: Literal["torch", "pycaffe"] = "torch",
    weights: Sequence[str | PathLike[str]] = (),
    resume: bool | str | PathLike[str] = False,
    restart: bool = False,
    max_iter: int | None = None,
    snapshot_every: int | None = None,
    batch: int | None = None,
    seed: int | None = None,
    gpu: int | None = None,
    workers: int = 2,
    precision: Literal["fp32", "tf32", "bf16"] = "fp32",
    compile: bool = False,
    memory_efficient: bool = False,
    bn_statistic: Literal["inverse_std", "variance"] | None = None,
) -> TrainingOutcome:
    """Train the net of a solver.prototxt, and return the iteration, the last solver state and the last test scores.

    solver            path of the solver.prototxt
    output            folder for snapshots, metrics and plots; None: as snapshot_prefix says
    backend           "torch", or "pycaffe" for real Caffe
    weights           .caffemodel or .h5 files to start from
    resume            True for the newest snapshot, or the path of a .solverstate
    restart           start at iteration 0 although snapshots of an earlier run exist; they are moved to another folder
    max_iter          number of iterations; None: the solver's
    snapshot_every    iterations between snapshots; None: the solver's
    batch             batch size of the data layers of the TRAIN phase; None: that of the net
    seed              random seed; None: the solver's random_seed, else 1
    gpu               index of the GPU; None: a GPU if torch has one and the solver does not say CPU
    workers           number of processes that prepare data
    precision         number format of activations (torch)
    compile           use torch.compile (torch)
    memory_efficient  use gradient checkpointing: less memory, more time (torch)
    bn_statistic      content of the fourth blob of merged BN in `weights`, if the files do not say it

    Raises PrototxtGenError if the solver, a net, the data or a file is wrong; snapshots written before remain.
    """
    newest = NEWEST if resume is True else ""
    job = TrainingJob(
        Path(solver),
        backend,
        out=None if output is None else Path(output),
        resume=newest if isinstance(resume, bool) else str(Path(resume)),
        weights=tuple(map(Path, weights)),
        max_iter=max_iter,
        snapshot_every=snapshot_every,
        restart=restart,
        batch=batch,
        settings=Settings(
            seed, gpu, workers, precision, compile, memory_efficient, sync_bn=False, bn_statistic=bn_statistic
        ),
    )
    return run(job)
