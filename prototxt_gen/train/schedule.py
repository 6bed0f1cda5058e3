"""At which iterations a solver tests, takes snapshots and displays its loss.

Source: src/caffe/solver.cpp Solver::Step, Solver::Solve.
"""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_gen.schema.caffe_proto import SolverParameter


@dataclass(frozen=True)
class Schedule:
    """The solver fields that determine the schedule; `test_nets` is the number of test nets."""

    max_iter: int
    test_interval: int = 0
    test_initialization: bool = True
    test_nets: int = 0
    snapshot: int = 0
    snapshot_after_train: bool = True
    display: int = 0
    average_loss: int = 1

    @classmethod
    def of(cls, params: SolverParameter) -> Schedule:
        """Return the schedule of a solver."""
        names = ("max_iter", "test_interval", "test_initialization", "snapshot", "snapshot_after_train", "display")
        fields = {name: getattr(params, name) for name in names}
        return cls(**fields, test_nets=len(params.test_iter), average_loss=max(1, params.average_loss))

    def tests_at(self, iteration: int) -> bool:
        """Whether the test nets run before the step of this iteration, or after the last one."""
        if not self.test_nets or not self.test_interval or iteration % self.test_interval:
            return False
        return iteration > 0 or self.test_initialization

    def snapshots_at(self, iteration: int) -> bool:
        """Whether a snapshot is due after this number of updates."""
        if iteration >= self.max_iter and self.snapshot_after_train:
            return True
        return bool(self.snapshot) and iteration % self.snapshot == 0

    def shows_at(self, iteration: int) -> bool:
        """Whether the loss of this iteration is displayed."""
        return bool(self.display) and iteration % self.display == 0


def count_tests_before(params: SolverParameter, iteration: int) -> int:
    """Return how many tests ran before the test of this iteration; their batches precede those of this test."""
    if not params.test_interval:
        return 0
    return -(-iteration // params.test_interval) - (iteration > 0 and not params.test_initialization)
