"""`-o -`: a command writes its file to stdout, and nothing else there."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

NET = """name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: true } }
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "prototxt_gen", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("convert prototxt net.prototxt", "out.prototxt"),
        ("convert onnx net.prototxt", "out.onnx"),
        ("draw net.prototxt --to dot", "out.dot"),
        ("draw net.prototxt --to html", "out.html"),
    ],
)
def test_stdout_gets_the_bytes_of_the_file(folder: Path, arguments: str, name: str) -> None:
    to_file, to_stdout = (run(folder, *arguments.split(), "-o", output) for output in (name, "-"))
    assert (to_file.returncode, to_stdout.returncode) == (0, 0), to_stdout.stderr
    assert to_file.stdout.decode() == f"{name}\n"
    assert to_stdout.stdout == (folder / name).read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["net.prototxt", name]


def test_pt2_on_stdout_can_be_loaded(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    done = run(folder, "convert", "pytorch", "net.prototxt", "-o", "-")
    assert done.returncode == 0
    assert b"W1" not in done.stderr.split(b":")[0]
    (folder / "out.pt2").write_bytes(done.stdout)
    data = torch.arange(108.0).reshape(1, 3, 6, 6)
    (pool,) = [torch.export.load(folder / "out.pt2").module()(data)]
    np.testing.assert_allclose(np.ravel(pool), [17.5, 53.5, 89.5])


def test_weights_on_stdout(folder: Path) -> None:
    from prototxt_gen import caffemodel

    layer = caffemodel.NewLayer("ip", "InnerProduct", blobs=[np.ones((2, 3), np.float32)])
    caffemodel.write(folder / "old.caffemodel", [layer], "small")
    done = run(folder, "convert", "caffemodel", "old.caffemodel", "-o", "-")
    assert done.stdout == (folder / "old.caffemodel").read_bytes()


def test_mean_on_stdout_leaves_the_other_results_to_stderr(folder: Path) -> None:
    np.savez(folder / "data.npz", data=np.full((2, 4, 4, 3), 7, np.uint8), label=np.zeros(2, np.int64))
    to_file = run(folder, "data", "mean", "data.npz", "--json", "-o", "mean.binaryproto")
    to_stdout = run(folder, "data", "mean", "data.npz", "--json", "-o", "-")
    assert to_stdout.stdout == (folder / "mean.binaryproto").read_bytes(), to_stdout.stderr
    assert json.loads(to_file.stdout)["channels"] == json.loads(to_stdout.stderr)["channels"] == [7, 7, 7]


@pytest.mark.parametrize(
    "arguments",
    ["emit attention-56", "convert bn net.prototxt --to merged", "data make data.npz", "train net.prototxt", "demo"],
)
def test_folder_cannot_be_written_to_stdout(folder: Path, arguments: str) -> None:
    done = run(folder, *arguments.split(), "-o", "-")
    assert done.returncode == 2
    assert b"- is stdout, which takes one file, and the output is a folder" in done.stderr


def test_pytorch_folder_cannot_be_written_to_stdout(folder: Path) -> None:
    done = run(folder, "convert", "pytorch", "net.prototxt", "-o", "-", "--to", "folder")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"error: /dev/stdout: the output is a folder, and this is not one\n"


def test_drawing_on_stdout_needs_a_format(folder: Path) -> None:
    done = run(folder, "draw", "net.prototxt", "-o", "-")
    assert done.returncode == 1
    assert b"or say with --to what is written" in done.stderr


def test_files_of_a_pytorch_folder_have_the_mode_of_the_umask(folder: Path) -> None:
    pytest.importorskip("safetensors")
    before = os.umask(0o022)
    try:
        assert run(folder, "convert", "pytorch", "net.prototxt", "-o", "out").returncode == 0
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder / "out").iterdir()}
    assert modes == {"model.py": 0o644, "model.safetensors": 0o644}


def test_data_set_is_written_through_a_link(folder: Path) -> None:
    np.savez(folder / "data.npz", data=np.full((2, 4, 4, 3), 7, np.uint8), label=np.zeros(2, np.int64))
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    done = run(folder, "data", "make", "data.npz", "-o", "link", "--to", "hdf5", "--force")
    assert done.returncode == 0, done.stderr
    assert (folder / "link").is_symlink()
    assert (folder / "real" / "list.txt").exists()


def test_data_set_does_not_replace_a_fifo(folder: Path) -> None:
    np.savez(folder / "data.npz", data=np.full((2, 4, 4, 3), 7, np.uint8), label=np.zeros(2, np.int64))
    os.mkfifo(folder / "fifo")
    done = run(folder, "data", "make", "data.npz", "-o", "fifo", "--force")
    assert done.returncode == 1
    assert done.stderr == b"error: fifo: not a folder, which a data set is\n"
    assert stat.S_ISFIFO((folder / "fifo").stat().st_mode)
