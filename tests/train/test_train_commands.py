"""The commands data, caffe and train on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from prototxt_gen import caffemodel
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.data.data_set_reader import open_dataset
from prototxt_gen.train import backend
from prototxt_gen.train.backend import Settings
from prototxt_gen.train.training_loop import TrainingOutcome
from prototxt_gen.train.training_run import NEWEST, TrainingJob
from tests.support import data_samples as samples


def typed(*words: object, status: int = 0) -> Result:
    """Run a command line."""
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == status, done.output
    return done


@pytest.fixture()
def npz(tmp_path: Path) -> Path:
    samples.write_npz(tmp_path / "set.npz")
    return tmp_path / "set.npz"


def test_data_make_and_info(tmp_path: Path, npz: Path) -> None:
    done = typed("data", "make", npz, "-o", tmp_path / "lmdb", "--resize", "4x3", "--shuffle", 5, "--part", "0:0.5")
    assert done.stdout == f"{tmp_path / 'lmdb'}: 20 samples, 3x4x3 (20)\n"
    assert open_dataset(tmp_path / "lmdb")[0][0].shape == (3, 4, 3)
    lines = typed("data", "info", tmp_path / "lmdb").stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'lmdb'}: lmdb, 20 samples, ")
    assert lines[1] == "shapes (channels x height x width): 3x4x3 (20)"
    found = json.loads(typed("data", "info", tmp_path / "lmdb", "--json").stdout)
    assert found["count"] == 20
    assert sum(found["labels"].values()) == 20
    assert "there already" in typed("data", "make", npz, "-o", tmp_path / "lmdb", status=1).stderr
    typed("data", "make", npz, "-o", tmp_path / "lmdb", "--force")
    assert len(open_dataset(tmp_path / "lmdb")) == 40


def test_data_make_hdf5_as_json(tmp_path: Path, npz: Path) -> None:
    made = json.loads(typed("data", "make", npz, "-o", tmp_path / "h5", "--to", "hdf5", "--json").stdout)
    assert made["source"] == str(tmp_path / "h5" / "list.txt")
    assert made["count"] == 40


def test_data_mean(tmp_path: Path, npz: Path) -> None:
    with np.load(npz) as stored:
        pixels = stored["x"].astype(np.float64)
    done = typed("data", "mean", npz, "-o", tmp_path / "mean.binaryproto")
    expected = " ".join(f"mean_value: {value:.6g}" for value in pixels.mean(axis=(0, 1, 2)))
    assert done.stdout.splitlines() == [expected, str(tmp_path / "mean.binaryproto")]
    written = caffemodel.read_binaryproto(tmp_path / "mean.binaryproto")
    np.testing.assert_allclose(written[0], pixels.mean(axis=0).transpose(2, 0, 1), rtol=1e-6)


@pytest.mark.parametrize(("words", "expected"), [
    (("data", "make", "gone", "-o", "x"), "error: gone does not exist"),
    (("data", "info", "gone"), "error: gone does not exist"),
    (("data", "make", "gone", "-o", "x", "--resize", "1x2x3"), "give one number, or height x width"),
])  # fmt: skip
def test_errors_are_one_sentence(words: tuple[str, ...], expected: str) -> None:
    done = typed(*words, status=1)
    assert expected in done.stderr
    assert not done.stdout


def test_part_option_takes_two_numbers() -> None:
    assert (
        "is not two numbers separated by a colon"
        in typed("data", "make", "a", "-o", "b", "--part", "1", status=2).stderr
    )


def test_caffe_status_of_a_python_without_it(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    fake.chmod(0o755)
    done = typed("caffe", "status", "--python", fake, status=1)
    assert done.stdout == "Caffe: not installed; 'prototxt-gen caffe install' builds one\n"
    assert json.loads(typed("caffe", "status", "--python", fake, "--json", status=1).stdout)["installed"] is False


@pytest.mark.caffe
def test_caffe_status() -> None:
    from tests.support.caffe_support import caffe_or_skip

    caffe = caffe_or_skip()
    lines = typed("caffe", "status").stdout.splitlines()
    assert lines[0] == f"Caffe 1.0.0 in {Path(caffe.__file__).parent}"
    assert "solvers: AdaDelta, AdaGrad, Adam, Nesterov, RMSProp, SGD" in lines
    assert any(line.endswith(" BN, BNLL") or ", BN, " in line for line in lines)


@pytest.fixture()
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[TrainingJob]:
    """Collect the TrainingJobs that `train` would run."""
    from prototxt_gen.train import training_run

    asked: list[TrainingJob] = []

    def take(job: TrainingJob) -> TrainingOutcome:
        asked.append(job)
        return TrainingOutcome(7, Path("x.solverstate"), {"test/accuracy": 0.5}, 143)

    monkeypatch.setattr(training_run, "run", take)
    return asked


def test_train_command_passes_all_options(jobs: list[TrainingJob]) -> None:
    done = typed("train", "s.prototxt", "--backend", "pycaffe", "--output", "o", "--weights", "a", "--weights", "b",
                 "--max-iter", 5, "--snapshot-every", 2, "--restart", "--gpu", 1, "--workers", 3, "--seed", 9,
                 "--precision", "bf16", "--compile", "--memory-efficient", "--sync-bn", status=143)  # fmt: skip
    settings = Settings(9, 1, 3, "bf16", True, True, True)
    weights = (Path("a"), Path("b"))
    assert jobs == [TrainingJob(Path("s.prototxt"), "pycaffe", Path("o"), "", weights, 5, 2, True, settings)]
    assert done.stdout == "stopped at iteration 7\ntest/accuracy: 0.5\nx.solverstate\n"


@pytest.mark.parametrize(("words", "expected"), [
    ((), ""), (("--resume",), NEWEST), (("--resume", "a.solverstate"), "a.solverstate"),
])  # fmt: skip
def test_resume_with_and_without_a_state(jobs: list[TrainingJob], words: tuple[str, ...], expected: str) -> None:
    typed("train", "s.prototxt", *words, status=143)
    assert (jobs[0].solver, jobs[0].resume) == (Path("s.prototxt"), expected)


def test_resume_before_the_solver(jobs: list[TrainingJob]) -> None:
    typed("train", "--resume", "s.prototxt", status=143)
    assert (jobs[0].solver, jobs[0].resume) == (Path("s.prototxt"), NEWEST)
    assert "Missing argument 'SOLVER'" in typed("train", "--resume", status=2).stderr


def test_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name="torch")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(RuntimeMissingError, match=r"PyTorch is not installed: pip install 'prototxt-gen\[torch\]'"):
        backend.create("torch", None, Settings())  # type: ignore[arg-type]
    with pytest.raises(PrototxtGenError, match="did you mean 'torch'"):
        backend.create("torc", None, Settings())  # type: ignore[arg-type]
