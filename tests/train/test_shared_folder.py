"""Two nets in one output folder: each has its own snapshots and records."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from prototxt_gen.cli import cli
from prototxt_gen.net.solver import read_solver
from prototxt_gen.train.metrics_csv import read_metrics
from prototxt_gen.train.run_record_names import run_record_names
from prototxt_gen.train.snapshots import Snapshots
from tests.support import train_support as small

RECORDS = ("metrics.csv", "curve.png", "curve.svg", "events")


def _train(*words: str, status: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["train", *words, "--workers", "0"], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder with two solvers, whose snapshots go to the folder `out`."""
    monkeypatch.chdir(small.folder(tmp_path, small.PLAIN))
    for name in ("first", "first_iter_5"):
        text = small.SOLVER.replace("out/small", f"out/{name}").replace("max_iter: 30", "max_iter: 10")
        (tmp_path / f"{name}.prototxt").write_text(text)
    return tmp_path


def _iterations(path: Path) -> list[int]:
    return [int(row["iteration"]) for row in read_metrics(path)]


def test_two_nets_keep_their_records(here: Path) -> None:
    _train("first.prototxt", "--snapshot-every", "5")
    first = (here / "out" / "first_metrics.csv").read_bytes()
    _train("first_iter_5.prototxt", "--max-iter", "4")
    assert (here / "out" / "first_metrics.csv").read_bytes() == first
    expected = {f"{name}_{end}" for name in ("first", "first_iter_5") for end in RECORDS}
    assert {
        path.name for path in (here / "out").iterdir() if "state" not in path.name and "model" not in path.name
    } == (expected)
    assert _iterations(here / "out" / "first_iter_5_metrics.csv") == [0, 1, 2, 3]
    _train("first_iter_5.prototxt", "--max-iter", "6", "--resume")
    assert _iterations(here / "out" / "first_iter_5_metrics.csv") == [0, 1, 2, 3, 4, 5]
    assert (here / "out" / "first_metrics.csv").read_bytes() == first
    assert len(list((here / "out" / "first_events").iterdir())) == 1
    assert len(list((here / "out" / "first_iter_5_events").iterdir())) == 2


def test_restart_moves_only_the_files_of_its_net(here: Path) -> None:
    _train("first.prototxt", "--max-iter", "2")
    _train("first_iter_5.prototxt", "--max-iter", "2")
    _train("first.prototxt", "--max-iter", "1", "--restart")
    moved = {path.name for path in (here / "out" / "earlier-1").iterdir()}
    states = {"first_iter_2.caffemodel", "first_iter_2.solverstate"}
    assert moved == {*run_record_names("first"), *states}
    assert (here / "out" / "first_iter_5_iter_2.solverstate").exists()
    assert _iterations(here / "out" / "first_iter_5_metrics.csv") == [0, 1]


def test_resuming_from_another_run_takes_none_of_the_rows(here: Path) -> None:
    """The rows of `first_iter_5` are no past of a run that continues from a state of `first`."""
    _train("first.prototxt", "--max-iter", "3")
    _train("first_iter_5.prototxt", "--max-iter", "2")
    _train("first_iter_5.prototxt", "--max-iter", "4", "--resume", "out/first_iter_3.solverstate")
    assert _iterations(here / "out" / "first_iter_5_metrics.csv") == [3]
    assert _iterations(here / "out" / "earlier-1" / "first_iter_5_metrics.csv") == [0, 1]


def test_names_with_wildcards(tmp_path: Path) -> None:
    for name in ("n[1]", "n1", "n*"):
        (tmp_path / f"{name}_iter_1.solverstate").touch()
        (tmp_path / f"{name}_metrics.csv").touch()
    found = Snapshots(tmp_path, "n[1]").earlier_files()
    assert [path.name for path in found] == ["n[1]_iter_1.solverstate", "n[1]_metrics.csv"]
    assert len(Snapshots(tmp_path, "n*").earlier_files()) == 2


def test_generated_nets_share_no_files() -> None:
    solvers = sorted((small.ROOT / "generated").glob("*/solver.prototxt"))
    assert len(solvers) == 10
    runs = [Snapshots.of(read_solver(path)) for path in solvers]
    paths = {run.folder / name for run in runs for name in (*run_record_names(run.name), run.paths(1)[0].name)}
    assert len(paths) == 10 * 5
