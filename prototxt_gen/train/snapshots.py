"""Snapshots: pairs of .caffemodel and .solverstate, either both complete or both absent.

Both files (and any further files of a backend) are written to a temporary folder beside the targets, read back, and
renamed, the state last. So a state always has its weights, and earlier snapshots survive every kind of failure.
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
from prototxt_gen.train.run_record_names import run_record_names

_FULL_DISK_BYTES = 1 << 20
"""A disk with less free space counts as full: Caffe's own writer does not say why it failed."""


@dataclass(frozen=True)
class Snapshots:
    """The snapshots of one run: `<folder>/<name>_iter_<N>.caffemodel` and `.solverstate`, with `.h5` if `hdf5`."""

    folder: Path
    name: str
    hdf5: bool = False

    @classmethod
    def of(cls, solver: Solver, out: Path | None = None) -> Snapshots:
        """Return the snapshots of a solver. `out` replaces the folder part of snapshot_prefix.

        If snapshot_prefix is missing or a folder, the name is that of the solver file, as in Caffe
        (UpgradeSnapshotPrefixProperty).
        """
        solver_file = Path(solver.source or "solver")
        prefix = Path(solver.params.snapshot_prefix or solver_file.with_suffix(""))
        if solver.params.snapshot_prefix.endswith("/") or prefix.is_dir():
            prefix = prefix / solver_file.stem
        return cls(out or prefix.parent, prefix.name, solver.params.snapshot_format == "HDF5")

    def paths(self, iteration: int) -> tuple[Path, Path]:
        """Return the paths of weights and solver state after this number of updates."""
        stem, end = f"{self.name}_iter_{iteration}", ".h5" if self.hdf5 else ""
        return self.folder / f"{stem}.caffemodel{end}", self.folder / f"{stem}.solverstate{end}"

    def save(self, backend: Backend) -> Path:
        """Write a snapshot of the backend and return the path of its state. Raises PrototxtGenError if that fails."""
        weights, state = self.paths(backend.iteration)
        with self._temporary() as folder:
            temporary_files = folder / weights.name, folder / state.name
            try:
                backend.snapshot(*temporary_files)
                _complete_snapshot(*temporary_files, backend.iteration, weights)
                for part in sorted(folder.iterdir(), key=lambda part: part == temporary_files[1]):
                    part.replace(self.folder / part.name)
            except (OSError, PrototxtGenError) as error:
                raise PrototxtGenError(self._failure(backend.iteration, error)) from error
        return state

    def _failure(self, iteration: int, error: Exception) -> str:
        why = error.strerror if isinstance(error, OSError) else error
        full = shutil.disk_usage(self.folder).free < _FULL_DISK_BYTES
        earlier = next(iter(self.states()), None)
        return (
            f"the snapshot of iteration {iteration} could not be written to {self.folder}: "
            f"{'the disk is full: ' if full else ''}{why}{f'; {earlier} is intact' if earlier else ''}"
        )

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Yield an empty folder. It always has the same name, so the next snapshot removes what a killed run left."""
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

    def states(self) -> list[Path]:
        """Return the existing solver states, most updates first."""
        pattern = re.compile(re.escape(self.name) + r"_iter_(\d+)\.solverstate(\.h5)?")
        names = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [(int(match[1]), path) for path in names if (match := pattern.fullmatch(path.name))]
        return [path for _, path in sorted(found, reverse=True)]

    def newest_state(self) -> Path | None:
        """Return the newest state that is readable and has its weights; None if there is none."""
        for state in self.states():
            try:
                caffemodel.read(weights_of_state(state))
            except WeightsError:
                continue
            return state
        return None

    def is_of_this_run(self, state: Path) -> bool:
        """Return whether a state has the name of this run's states, in whichever folder."""
        return re.fullmatch(re.escape(self.name) + r"_iter_\d+\.solverstate(\.h5)?", state.name) is not None

    def earlier_files(self) -> list[Path]:
        """Return the files and folders that an earlier run of this name left in this folder.

        Files of other names are of other nets, which may share the folder.
        """
        records = "|".join(re.escape(name) for name in run_record_names(self.name))
        pattern = re.compile(rf"{re.escape(self.name)}_iter_\d+\.(caffemodel|solverstate)(\.h5)?|{records}")
        names = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(path for path in names if pattern.fullmatch(path.name))

    def move_earlier_run_aside(self) -> Path | None:
        """Move the files of an earlier run to a new folder and return it, so that --resume cannot mix two runs."""
        files = self.earlier_files()
        if not files:
            return None
        number = next(n for n in range(1, 1 << 20) if not (self.folder / f"earlier-{n}").exists())
        target = self.folder / f"earlier-{number}"
        target.mkdir()
        for file in files:
            file.replace(target / file.name)
        return target


def weights_of_state(state: Path) -> Path:
    """Return the weights file of a state. Raises WeightsError if it does not exist.

    It is looked for beside the state, which may have been moved, and then at the path that the state contains.
    """
    learned_net = Path(caffemodel.read_solverstate(state).learned_net)
    by_name = re.sub(r"\.solverstate(\.h5)?$", r".caffemodel\1", state.name)
    for path in (state.parent / learned_net.name, state.parent / by_name, learned_net):
        if path.is_file():
            return path
    raise WeightsError(f"{state}: its weights file {learned_net} does not exist")


def rename_weights(state: Path, learned_net: str) -> None:
    """Change the name of the weights file (learned_net) inside a state."""
    found = caffemodel.read_solverstate(state)
    if found.learned_net != learned_net:
        write_state(state, found, learned_net)


def write_state(path: Path, state: SolverState, learned_net: str) -> None:
    """Write a copy of a state with another name for its weights file."""
    caffemodel.write_solverstate(
        path,
        iter=state.iter,
        learned_net=learned_net,
        history=state.history,
        current_step=state.current_step,
        force=True,
    )


def _complete_snapshot(weights: Path, state: Path, iteration: int, target: Path) -> None:
    """Read both files back, set the state's learned_net, and flush them to the disk (fsync)."""
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
