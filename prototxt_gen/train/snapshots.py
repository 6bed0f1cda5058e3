"""Snapshots: pairs of .caffemodel and .solverstate that are complete or not there at all.

Both files (and whatever a backend adds) are written to a folder of their own beside the targets, read back, and
renamed, the state last. So a state that is there has its weights, and whatever ends a run, earlier snapshots stay.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen import caffemodel
from prototxt_gen.caffemodel.types import SolverState
from prototxt_gen.common.errors import PrototxtGenError, WeightsError
from prototxt_gen.net.solver import Solver
from prototxt_gen.train.backend import Backend

_FULL = 1 << 20
"""With fewer bytes free a disk counts as full: Caffe's own writer does not say why it failed."""
RUN_FILES = ("metrics.csv", "curve.png", "curve.svg", "events.out.tfevents.*")


@dataclass(frozen=True)
class Snapshots:
    """The snapshots of one run: `<folder>/<name>_iter_<N>.caffemodel` and `.solverstate`, with .h5 if asked for."""

    folder: Path
    name: str
    hdf5: bool = False

    @classmethod
    def of(cls, solver: Solver, out: Path | None = None) -> Snapshots:
        """Return where a solver's snapshots go. `out` replaces the folder that snapshot_prefix names.

        A prefix that is missing or a folder gets the solver's own name, as in Caffe (UpgradeSnapshotPrefixProperty).
        """
        own = Path(solver.source or "solver")
        prefix = Path(solver.params.snapshot_prefix or own.with_suffix(""))
        if solver.params.snapshot_prefix.endswith("/") or prefix.is_dir():
            prefix = prefix / own.stem
        return cls(out or prefix.parent, prefix.name, solver.params.snapshot_format == "HDF5")

    def paths(self, iteration: int) -> tuple[Path, Path]:
        """Return the names of weights and state after so many updates."""
        stem, end = f"{self.name}_iter_{iteration}", ".h5" if self.hdf5 else ""
        return self.folder / f"{stem}.caffemodel{end}", self.folder / f"{stem}.solverstate{end}"

    def save(self, backend: Backend) -> Path:
        """Write the snapshot of this iteration and return the state's name; PrototxtGenError where that failed."""
        weights, state = self.paths(backend.iteration)
        with self._temporary() as folder:
            parts = folder / weights.name, folder / state.name
            try:
                backend.snapshot(*parts)
                _complete(*parts, backend.iteration, weights)
                for part in sorted(folder.iterdir(), key=lambda part: part == parts[1]):
                    part.replace(self.folder / part.name)
            except (OSError, PrototxtGenError) as error:
                raise PrototxtGenError(self._failure(backend.iteration, error)) from error
        return state

    def _failure(self, iteration: int, error: Exception) -> str:
        why = error.strerror if isinstance(error, OSError) else error
        full = shutil.disk_usage(self.folder).free < _FULL
        earlier = next(iter(self.all()), None)
        return (
            f"the snapshot of iteration {iteration} could not be written to {self.folder}: "
            f"{'the disk is full: ' if full else ''}{why}{f'; {earlier} stands' if earlier else ''}"
        )

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Yield a new folder; one name for all, so that what a killed run left is cleared by the next snapshot."""
        folder = self.folder / f".{self.name}.snapshot"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise PrototxtGenError(f"{self.folder}: snapshots cannot be written: {error.strerror}") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def all(self) -> list[Path]:
        """Return the states that are there, the one of the most updates first."""
        pattern = re.compile(re.escape(self.name) + r"_iter_(\d+)\.solverstate(\.h5)?")
        names = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [(int(match[1]), path) for path in names if (match := pattern.fullmatch(path.name))]
        return [path for _, path in sorted(found, reverse=True)]

    def newest(self) -> Path | None:
        """Return the newest state that can be read and whose weights are there; None where there is none."""
        for state in self.all():
            try:
                caffemodel.read(weights_of(state))
            except WeightsError:
                continue
            return state
        return None

    def leftovers(self) -> list[Path]:
        """Return the files of an earlier run in this place."""
        names = (f"{self.name}_iter_*.caffemodel*", f"{self.name}_iter_*.solverstate*", *RUN_FILES)
        return sorted(path for name in names for path in self.folder.glob(name))

    def set_aside(self) -> Path | None:
        """Move an earlier run's files to a folder of their own, so that a later --resume cannot mix the two."""
        files = self.leftovers()
        if not files:
            return None
        number = next(n for n in range(1, 1 << 20) if not (self.folder / f"earlier-{n}").exists())
        target = self.folder / f"earlier-{number}"
        target.mkdir()
        for file in files:
            file.replace(target / file.name)
        return target


def weights_of(state: Path) -> Path:
    """Return the weights a state goes with: beside it, as it may have moved, else where it says; else WeightsError."""
    told = Path(caffemodel.read_solverstate(state).learned_net)
    by_name = re.sub(r"\.solverstate(\.h5)?$", r".caffemodel\1", state.name)
    for path in (state.parent / told.name, state.parent / by_name, told):
        if path.is_file():
            return path
    raise WeightsError(f"{state}: the weights it goes with, {told}, are gone")


def rename_weights(state: Path, learned_net: str) -> None:
    """Write the name of the weights into a state."""
    found = caffemodel.read_solverstate(state)
    if found.learned_net != learned_net:
        write_state(state, found, learned_net)


def write_state(path: Path, state: SolverState, learned_net: str) -> None:
    """Write a state that was read, with another name for its weights."""
    caffemodel.write_solverstate(
        path,
        iter=state.iter,
        learned_net=learned_net,
        history=state.history,
        current_step=state.current_step,
        force=True,
    )


def _complete(weights: Path, state: Path, iteration: int, target: Path) -> None:
    """Read both files back, set the state's learned_net, and see them safely on the disk."""
    caffemodel.read(weights)
    rename_weights(state, str(target))
    found = caffemodel.read_solverstate(state).iter
    if found != iteration:
        raise WeightsError(f"the state says iteration {found}")
    for path in (weights, state):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
