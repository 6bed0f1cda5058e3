"""The shell around a backend: when it tests and snapshots, what it writes, how it ends. The backend just counts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen import caffemodel
from prototxt_gen.analysis import analyse
from prototxt_gen.caffemodel import NewLayer
from prototxt_gen.errors import PrototxtGenError, WeightsError
from prototxt_gen.reader import parse_net
from prototxt_gen.schema import SolverParameter
from prototxt_gen.solver import Solver
from prototxt_gen.train import bar, curve, metrics, schedule
from prototxt_gen.train.backend import Settings, Step, named_outputs
from prototxt_gen.train.loop import Files, Follower, Outcome, train
from prototxt_gen.train.memory import estimate, free_memory
from prototxt_gen.train.recorder import Recorder, named
from prototxt_gen.train.schedule import Schedule
from prototxt_gen.train.snapshots import Snapshots, weights_of


class Counter:
    """A backend whose only weight is the number of its steps; `calls` is what the shell asked of it."""

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


def run(backend: Counter, folder: Path, **fields: Any) -> Outcome:
    """Train with these fields of a solver."""
    plan = Schedule.of(SolverParameter(**{"max_iter": 10, **fields}))
    recorder = Recorder(folder, backend.iteration, plan)
    display = bar.Lines(plan, bar.Speed(4))
    try:
        return train(backend, plan, Files(recorder, Snapshots(folder, "n"), display))
    finally:
        recorder.close()


def test_it_tests_and_snapshots_when_caffe_does(tmp_path: Path) -> None:
    backend = Counter()
    outcome = run(backend, tmp_path, test_iter=[1], test_interval=4, snapshot=4, max_iter=9)
    steps = ["step"] * 4
    expected = ["test 0", *steps, "snapshot 4", "test 4", *steps, "snapshot 8", "test 8", "step", "snapshot 9"]
    assert backend.calls == expected
    assert outcome.iteration == 9
    assert outcome.exit_code == 0
    assert outcome.scores == {"test/accuracy": 0.08}


def test_the_last_test_and_what_can_be_left_out(tmp_path: Path) -> None:
    backend = Counter()
    run(backend, tmp_path, test_iter=[1], test_interval=2, test_initialization=False, snapshot_after_train=False,
        max_iter=4)  # fmt: skip
    assert backend.calls == ["step", "step", "test 2", "step", "step", "test 4"]


def test_a_run_without_a_step_still_snapshots(tmp_path: Path) -> None:
    backend = Counter()
    assert run(backend, tmp_path, max_iter=0).state == tmp_path / "n_iter_0.solverstate"
    assert backend.calls == ["snapshot 0"]


@pytest.mark.parametrize("initialization", [True, False])
def test_tests_before_counts_what_the_loop_does(tmp_path: Path, initialization: bool) -> None:
    params = SolverParameter(test_iter=[1], test_interval=3, max_iter=11, test_initialization=initialization)
    plan = Schedule.of(params)
    done = 0
    for iteration in range(12):
        if plan.tests_at(iteration):
            assert schedule.tests_before(params, iteration) == done
            done += 1
    assert done == 3 + initialization


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_step_then_snapshots(tmp_path: Path, number: int, status: int) -> None:
    backend = Counter(lambda iteration: os.kill(os.getpid(), number) if iteration == 4 else None)
    before = signal.getsignal(number)
    outcome = run(backend, tmp_path, test_iter=[1], test_interval=1)
    assert backend.calls[-2:] == ["step", "snapshot 5"]
    assert (outcome.iteration, outcome.exit_code) == (5, status)
    assert signal.getsignal(number) is before


def test_a_signal_cuts_a_test_short(tmp_path: Path) -> None:
    backend = Counter()
    backend.at_test = lambda: os.kill(os.getpid(), signal.SIGTERM)
    outcome = run(backend, tmp_path, test_iter=[1], test_interval=5)
    assert backend.calls == ["test 0", "snapshot 0"]
    assert not outcome.scores


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    def twice(iteration: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    backend = Counter(twice)
    with pytest.raises(KeyboardInterrupt):
        run(backend, tmp_path)
    assert backend.calls == ["step"]


def test_processes_of_one_run_stop_at_one_iteration() -> None:
    """The process that got no signal learns of it through `agree`."""

    class OneOfMany(Counter):
        def agree(self, stop: int) -> int:
            return signal.SIGTERM if self.iteration == 3 else stop

    backend = OneOfMany()
    outcome = train(backend, Schedule(max_iter=10), Follower())
    assert (outcome.iteration, outcome.exit_code) == (3, 143)


def test_a_snapshot_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
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
        with pytest.raises(PrototxtGenError, match=rf"of iteration {iteration} .*n_iter_4\.solverstate stands"):
            snapshots.save(backend)
    assert sorted(path.name for path in snapshots.folder.iterdir()) == ["n_iter_4.caffemodel", "n_iter_4.solverstate"]


def test_a_snapshot_says_which_weights_are_its_own(tmp_path: Path) -> None:
    backend = Counter()
    state = Snapshots(tmp_path, "n").save(backend)
    assert caffemodel.read_solverstate(state).learned_net == str(tmp_path / "n_iter_0.caffemodel")
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in tmp_path.glob("n_*"):
        file.rename(moved / file.name)
    assert weights_of(moved / state.name) == moved / "n_iter_0.caffemodel"
    (moved / "n_iter_0.caffemodel").unlink()
    with pytest.raises(WeightsError, match="are gone"):
        weights_of(moved / state.name)


def test_hdf5_snapshots(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, "n", hdf5=True)
    state = snapshots.save(Counter())
    assert state.name == "n_iter_0.solverstate.h5"
    assert snapshots.newest() == state
    assert weights_of(state).name == "n_iter_0.caffemodel.h5"


def test_the_newest_complete_snapshot_is_found(tmp_path: Path) -> None:
    snapshots, backend = Snapshots(tmp_path, "n"), Counter()
    for iteration in (9, 10, 100, 200):
        backend.iteration = iteration
        snapshots.save(backend)
    (tmp_path / "n_iter_200.caffemodel").unlink()
    whole = (tmp_path / "n_iter_100.solverstate").read_bytes()
    (tmp_path / "n_iter_100.solverstate").write_bytes(whole[:-4])
    (tmp_path / "nn_iter_900.solverstate").write_bytes(whole)
    assert snapshots.newest() == tmp_path / "n_iter_10.solverstate"
    assert Snapshots(tmp_path / "none", "n").newest() is None


def test_an_earlier_run_is_moved_aside(tmp_path: Path) -> None:
    run(Counter(), tmp_path)
    snapshots = Snapshots(tmp_path, "n")
    for number in (1, 2):
        assert snapshots.set_aside() == tmp_path / f"earlier-{number}"
        assert snapshots.all() == []
        assert snapshots.set_aside() is None
        run(Counter(), tmp_path)
    assert (tmp_path / "earlier-1" / "metrics.csv").exists()
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


def test_metrics_of_a_resumed_run_are_those_of_an_unbroken_one(tmp_path: Path) -> None:
    def rows(path: Path) -> list[dict[str, str]]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in metrics.read(path / "metrics.csv")]

    fields: dict[str, Any] = {"test_iter": [1], "test_interval": 4}
    run(Counter(), tmp_path / "whole", **fields)
    run(Counter(), tmp_path / "broken", **fields, max_iter=7)
    with (tmp_path / "broken" / "metrics.csv").open("a") as file:
        file.write("7,0.1,0.2")  # what a killed process leaves of a row
    resumed = Counter()
    resumed.iteration = 4
    run(resumed, tmp_path / "broken", **fields)
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")
    assert [row.get("test/accuracy") for row in rows(tmp_path / "whole")][:5] == ["0", None, None, None, "0.04"]


def test_a_column_that_comes_late_gets_its_place(tmp_path: Path) -> None:
    table = metrics.Table(tmp_path / "metrics.csv")
    table.add({"iteration": 0, "loss": 1.5})
    table.add({"iteration": 1, "loss": 1.25, "test/accuracy": 0.5})
    table.close()
    rows = list(metrics.read(tmp_path / "metrics.csv"))
    assert [row.get("test/accuracy") for row in rows] == [None, "0.5"]
    assert [row["loss"] for row in rows] == ["1.5", "1.25"]


def test_a_file_that_is_no_metrics_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("name,price\nx,1\n")
    with pytest.raises(PrototxtGenError, match="not a metrics file"):
        metrics.Table(tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text().startswith("name,price")


def test_tensorboard_reads_the_events(tmp_path: Path) -> None:
    loader: Any = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    run(Counter(), tmp_path, test_iter=[1], test_interval=5, display=2, average_loss=2)
    (file,) = tmp_path.glob("events.out.tfevents.*")
    found: dict[str, dict[int, float]] = {}
    for event in loader.LegacyEventFileLoader(str(file)).Load():
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    assert found["test/accuracy"] == {0: 0.0, 5: pytest.approx(0.05), 10: pytest.approx(0.1)}
    assert found["loss"] == pytest.approx({i: (1 / i + 1 / (i + 1)) / 2 if i else 1.0 for i in range(0, 10, 2)})


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    run(Counter(), tmp_path, test_iter=[1], test_interval=5)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "curve.svg").read_text()
    assert text.count("<!-- test/accuracy -->") == 1
    assert text.count("<!-- loss -->") == 1
    again = curve.draw(tmp_path / "metrics.csv", tmp_path / "again")
    assert [path.name for path in again] == ["curve.png", "curve.svg"]
    for path in again:
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_lines_tell_what_caffe_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Counter(), tmp_path, display=5, average_loss=2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("iteration 0: loss 1, rate 0.1,")
    assert lines[1].startswith(f"iteration 5: loss {(1 / 5 + 1 / 6) / 2:.5g}, rate 0.1,")
    assert lines[2] == f"snapshot: {tmp_path / 'n_iter_10.solverstate'}"


def test_speed_counts_images() -> None:
    speed = bar.Speed(32)
    assert speed.words() == "0 images/s"
    speed.took(0.5)
    assert speed.words() == "64 images/s"
    assert speed.left(7200) == "1:00:00"


def test_outputs_by_name() -> None:
    blobs = {"loss": np.float32(1.5).reshape(()), "each": np.array([[1.0, 2.0]]), "label": np.zeros(64)}
    assert named_outputs(blobs) == {"loss": 1.5, "each[0]": 1.0, "each[1]": 2.0}
    assert named([{"a": 1.0}]) == {"test/a": 1.0}
    assert named([{"a": 1.0}, {"a": 2.0}]) == {"test0/a": 1.0, "test1/a": 2.0}


def test_every_run_has_a_seed() -> None:
    assert Settings().seed_for(Solver(SolverParameter())) == 1
    assert Settings().seed_for(Solver(SolverParameter(random_seed=7))) == 7
    assert Settings(seed=0).seed_for(Solver(SolverParameter(random_seed=7))) == 0


def test_memory_is_counted_by_hand() -> None:
    net = parse_net(
        'input: "x" input_shape { dim: 4 dim: 10 } '
        'layer { name: "a" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 5 } }'
    )
    found = analyse(net)
    sgd, adam = estimate(found, [found], "SGD", 4), estimate(found, [], "Adam", 4)
    assert sgd.per_image == 2 * 4 * (10 + 5)
    assert sgd.fixed == 3 * 4 * 55 + 4 * 4 * 15
    assert adam.fixed == 4 * 4 * 55
    assert sgd.largest_batch(sgd.fixed + 7 * sgd.per_image + 1) == 7
    assert sgd.largest_batch(sgd.total) == 4
    assert "TOO LITTLE" in sgd.words(sgd.total - 1)
    assert "TOO LITTLE" not in sgd.words(sgd.total)
    assert (free_memory() or 1 << 30) > 1 << 20
