"""The training loop with a backend that only counts: when it tests and takes snapshots, and how it ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from prototxt_gen import caffemodel
from prototxt_gen.common.errors import PrototxtGenError, WeightsError
from prototxt_gen.net.solver import Solver
from prototxt_gen.schema.caffe_proto import SolverParameter
from prototxt_gen.train import schedule
from prototxt_gen.train.schedule import Schedule
from prototxt_gen.train.snapshots import Snapshots, weights_of_state
from prototxt_gen.train.training_loop import NoOutputs, train
from tests.support.counting_backend import Counter, run


def test_tests_and_snapshots_are_at_caffes_iterations(tmp_path: Path) -> None:
    backend = Counter()
    outcome = run(backend, tmp_path, test_iter=[1], test_interval=4, snapshot=4, max_iter=9)
    steps = ["step"] * 4
    expected = ["test 0", *steps, "snapshot 4", "test 4", *steps, "snapshot 8", "test 8", "step", "snapshot 9"]
    assert backend.calls == expected
    assert outcome.iteration == 9
    assert outcome.exit_code == 0
    assert outcome.scores == {"test/accuracy": 0.08}


def test_last_test_and_optional_snapshot_after_training(tmp_path: Path) -> None:
    backend = Counter()
    run(backend, tmp_path, test_iter=[1], test_interval=2, test_initialization=False, snapshot_after_train=False,
        max_iter=4)  # fmt: skip
    assert backend.calls == ["step", "step", "test 2", "step", "step", "test 4"]


def test_a_run_without_a_step_still_snapshots(tmp_path: Path) -> None:
    backend = Counter()
    assert run(backend, tmp_path, max_iter=0).state == tmp_path / "n_iter_0.solverstate"
    assert backend.calls == ["snapshot 0"]


@pytest.mark.parametrize("initialization", [True, False])
def test_count_tests_before_agrees_with_the_loop(tmp_path: Path, initialization: bool) -> None:
    params = SolverParameter(test_iter=[1], test_interval=3, max_iter=11, test_initialization=initialization)
    plan = Schedule.of(params)
    done = 0
    for iteration in range(12):
        if plan.tests_at(iteration):
            assert schedule.count_tests_before(params, iteration) == done
            done += 1
    assert done == 3 + initialization


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_lets_the_step_finish_and_writes_a_snapshot(tmp_path: Path, number: int, status: int) -> None:
    backend = Counter(lambda iteration: os.kill(os.getpid(), number) if iteration == 4 else None)
    before = signal.getsignal(number)
    outcome = run(backend, tmp_path, test_iter=[1], test_interval=1)
    assert backend.calls[-2:] == ["step", "snapshot 5"]
    assert (outcome.iteration, outcome.exit_code) == (5, status)
    assert signal.getsignal(number) is before


def test_signal_interrupts_a_test(tmp_path: Path) -> None:
    backend = Counter()
    backend.at_test = lambda: os.kill(os.getpid(), signal.SIGTERM)
    outcome = run(backend, tmp_path, test_iter=[1], test_interval=5)
    assert backend.calls == ["test 0", "snapshot 0"]
    assert not outcome.scores


def test_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    def twice(iteration: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    backend = Counter(twice)
    with pytest.raises(KeyboardInterrupt):
        run(backend, tmp_path)
    assert backend.calls == ["step"]


def test_all_processes_stop_at_the_same_iteration() -> None:
    """A process without a signal learns of it through `max_over_processes`."""

    class OneOfMany(Counter):
        def max_over_processes(self, stop: int) -> int:
            return signal.SIGTERM if self.iteration == 3 else stop

    backend = OneOfMany()
    outcome = train(backend, Schedule(max_iter=10), NoOutputs())
    assert (outcome.iteration, outcome.exit_code) == (3, 143)


def test_snapshot_is_complete_or_absent(tmp_path: Path) -> None:
    class Failing(Counter):
        def snapshot(self, weights: Path, state: Path) -> None:
            super().snapshot(weights, state)
            if self.iteration == 6:
                raise OSError(28, "No space left on device")
            if self.iteration == 8:
                weights.write_bytes(weights.read_bytes()[:-3])

    snapshots = Snapshots(tmp_path / "deep" / "er", "n")
    backend = Failing()
    backend.iteration = 4
    assert snapshots.save(backend) == snapshots.paths(4)[1]
    for iteration in (6, 8):
        backend.iteration = iteration
        with pytest.raises(PrototxtGenError, match=rf"of iteration {iteration} .*n_iter_4\.solverstate is intact"):
            snapshots.save(backend)
    assert sorted(path.name for path in snapshots.folder.iterdir()) == ["n_iter_4.caffemodel", "n_iter_4.solverstate"]


def test_state_finds_its_weights(tmp_path: Path) -> None:
    backend = Counter()
    state = Snapshots(tmp_path, "n").save(backend)
    assert caffemodel.read_solverstate(state).learned_net == str(tmp_path / "n_iter_0.caffemodel")
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in tmp_path.glob("n_*"):
        file.rename(moved / file.name)
    assert weights_of_state(moved / state.name) == moved / "n_iter_0.caffemodel"
    (moved / "n_iter_0.caffemodel").unlink()
    with pytest.raises(WeightsError, match="does not exist"):
        weights_of_state(moved / state.name)


def test_hdf5_snapshots(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, "n", hdf5=True)
    state = snapshots.save(Counter())
    assert state.name == "n_iter_0.solverstate.h5"
    assert snapshots.newest_state() == state
    assert weights_of_state(state).name == "n_iter_0.caffemodel.h5"


def test_newest_complete_snapshot_is_found(tmp_path: Path) -> None:
    snapshots, backend = Snapshots(tmp_path, "n"), Counter()
    for iteration in (9, 10, 100, 200):
        backend.iteration = iteration
        snapshots.save(backend)
    (tmp_path / "n_iter_200.caffemodel").unlink()
    whole = (tmp_path / "n_iter_100.solverstate").read_bytes()
    (tmp_path / "n_iter_100.solverstate").write_bytes(whole[:-4])
    (tmp_path / "nn_iter_900.solverstate").write_bytes(whole)
    assert snapshots.newest_state() == tmp_path / "n_iter_10.solverstate"
    assert Snapshots(tmp_path / "none", "n").newest_state() is None


def test_files_of_an_earlier_run_are_moved(tmp_path: Path) -> None:
    run(Counter(), tmp_path)
    snapshots = Snapshots(tmp_path, "n")
    for number in (1, 2):
        assert snapshots.move_earlier_run_aside() == tmp_path / f"earlier-{number}"
        assert snapshots.states() == []
        assert snapshots.move_earlier_run_aside() is None
        run(Counter(), tmp_path)
    assert (tmp_path / "earlier-1" / "n_metrics.csv").exists()
    assert (tmp_path / "earlier-1" / "n_iter_10.solverstate").exists()


def test_snapshot_prefixes_are_caffes(tmp_path: Path) -> None:
    def place(prefix: str, out: Path | None = None) -> Path:
        params = SolverParameter(**({"snapshot_prefix": prefix} if prefix else {}))
        return Snapshots.of(Solver(params, source="a/lenet_solver.prototxt"), out).paths(5)[1]

    assert place("") == Path("a/lenet_solver_iter_5.solverstate")
    assert place("b/lenet") == Path("b/lenet_iter_5.solverstate")
    assert place(f"{tmp_path}") == tmp_path / "lenet_solver_iter_5.solverstate"
    assert place("b/") == Path("b/lenet_solver_iter_5.solverstate")
    assert place("b/lenet", Path("c")) == Path("c/lenet_iter_5.solverstate")
