"""What `train` tells the user before and after training, beside errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from prototxt_gen import caffemodel
from prototxt_gen.cli import cli
from prototxt_gen.data.make import make
from prototxt_gen.layers.utility.python import PythonParameter
from prototxt_gen.net.batch_size import with_batch_size
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.render import net_text
from tests.support import train_support as small
from tests.support.caffe_support import caffe_or_skip

BACKENDS = ("torch", pytest.param("pycaffe", marks=pytest.mark.caffe))


def _run(*words: str, status: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder with a valid data set, net and solver."""
    monkeypatch.chdir(small.folder(tmp_path, small.PLAIN))
    return tmp_path


def _solver(here: Path, more: str, name: str = "solver.prototxt") -> None:
    (here / name).write_text(f"{small.SOLVER} {more}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_gpu_mode_without_gpu(here: Path, backend: str) -> None:
    _solver(here, "solver_mode: GPU debug_info: true")
    words = ("train", "solver.prototxt", "--workers", "0", "--max-iter", "1", "--backend", backend)
    result = _run(*words)
    if backend == "pycaffe" or not torch.cuda.is_available():
        assert "warning: solver_mode: GPU, but " in result.stderr
    assert "warning: solver.prototxt: debug_info has no effect" in result.stderr
    _solver(here, "")
    quiet = _run(*words, "--restart").stderr
    assert "solver_mode" not in quiet
    assert "debug_info" not in quiet


@pytest.mark.caffe
def test_gpu_of_a_caffe_without_gpus(here: Path) -> None:
    result = _run("train", "solver.prototxt", "--workers", "0", "--backend", "pycaffe", "--gpu", "0", status=1)
    assert "--gpu 0: " in result.stderr.splitlines()[-1]


def test_net_with_debug_info(here: Path) -> None:
    (here / "net.prototxt").write_text(f"debug_info: true {small.PLAIN}")
    assert "warning: net.prototxt: debug_info has no effect" in _run(*_TRAIN).stderr


_TRAIN = ("train", "solver.prototxt", "--workers", "0", "--max-iter", "1")


def test_warnings_of_check_are_printed(here: Path) -> None:
    _solver(here, "")
    (here / "net.prototxt").write_text(small.PLAIN.replace('weight_filler { type: "xavier" }', "", 1))
    warnings = [
        line for line in _run("check", "solver.prototxt", status=0).stdout.splitlines() if "no weight_f" in line
    ]
    assert warnings == [line for line in _run(*_TRAIN).stderr.splitlines() if "no weight_f" in line]
    assert len(warnings) == 1
    solver = small.SOLVER.replace('"multistep" gamma: 0.5 stepvalue: 12', '"fixed" stepvalue: 12')
    (here / "solver.prototxt").write_text(solver)
    assert "warning: solver.prototxt: line 3: only lr_policy 'multistep' uses stepvalue" in _run(
        *_TRAIN, "--restart"
    ).stderr  # fmt: skip


def test_score_of_an_earlier_iteration_says_so(here: Path) -> None:
    lines = _run("train", "solver.prototxt", "--workers", "0", "--max-iter", "11").stdout.splitlines()
    assert [line.endswith(" (at iteration 10)") for line in lines if line.startswith("test/")] == [True, True]
    lines = _run("train", "solver.prototxt", "--workers", "0", "--max-iter", "10", "--restart").stdout.splitlines()
    assert [line.endswith(")") for line in lines if line.startswith("test/")] == [False, False]


def test_snapshot_prefix_below_home_is_no_error_with_output(here: Path) -> None:
    (here / "solver.prototxt").write_text(small.SOLVER.replace("out/small", "~/small"))
    assert "does not replace ~" in _run(*_TRAIN, status=1).stderr
    assert not (here / "~").exists()
    _run(*_TRAIN, "--output", "out")
    assert (here / "out" / "small_iter_1.caffemodel").exists()


def test_two_nets_of_one_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder has another net.prototxt and weights file than the solver's folder."""
    other = here / "other"
    other.mkdir()
    (other / "net.prototxt").write_text(small.PLAIN.replace('"set"', f'"{here}/set"').replace("small", "other"))
    _solver(here, "")
    monkeypatch.chdir(other)
    used = "net 'net.prototxt' is read from the working folder, as in Caffe; '../net.prototxt' is another file"
    for words in (("check",), ("summary",), ("train", "--workers", "0", "--max-iter", "1", "--output", "out")):
        result = _run(words[0], "../solver.prototxt", *words[1:])
        assert used in result.output
    assert "\nnet: net.prototxt\n" in result.stderr
    (other / "net.prototxt").unlink()
    result = _run("train", "../solver.prototxt", "--workers", "0", "--max-iter", "0", "--output", "out2")
    assert "is read from the working folder" not in result.stderr
    assert "net: ../net.prototxt\n" in result.stderr


def test_one_net_in_working_folder_is_no_warning(here: Path) -> None:
    assert "working folder" not in _run("check", "solver.prototxt").output
    assert "working folder" not in _run("check", str(here / "solver.prototxt")).output


def test_check_of_a_solver_without_its_net(here: Path) -> None:
    (here / "net.prototxt").unlink()
    assert "error: line 2: net 'net.prototxt' does not exist" in _run("check", "solver.prototxt", status=1).stdout


HDF5 = 'type: "HDF5Data" hdf5_data_param { source: "h5/list.txt" batch_size: 7 }'
IMAGES = 'type: "ImageData" image_data_param { source: "list.txt" batch_size: 7 is_color: false'
REFUSED = {
    "transform_param of HDF5Data": (f"{HDF5} transform_param {{ scale: 0.1 }}", "it does not transform data"),
    "empty transform_param of HDF5Data": (f"{HDF5} transform_param {{}}", "it does not transform data"),
    "lone new_width": (f"{IMAGES} new_width: 14 }}", "new_height and new_width must both be given"),
    "lone new_height": (f"{IMAGES} new_height: 14 }}", "new_height and new_width must both be given"),
    "three tops": (f'{IMAGES} }} top: "third"', "takes 2 tops"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_data_layers_that_caffe_refuses(here: Path, case: str, backend: str) -> None:
    """The shapes of the data are known before the check, but the layer type is asked all the same."""
    import cv2

    make(here / "set.npz", here / "h5", to="hdf5")
    rng = np.random.default_rng(0)
    for number in range(8):
        assert cv2.imwrite(str(here / f"{number}.png"), rng.integers(0, 256, (14, 14), dtype=np.uint8))
    (here / "list.txt").write_text("".join(f"{number}.png {number % 4}\n" for number in range(8)))
    data, message = REFUSED[case]
    layer = f'layer {{ name: "data" top: "data" top: "label" {data} }}'
    rest = small.PLAIN[small.PLAIN.index('layer { name: "conv1"') :]
    (here / "net.prototxt").write_text(f"{layer.replace('name:', 'include { phase: TRAIN } name:')} {rest}")
    (here / "solver.prototxt").write_text(small.SOLVER.replace("test_iter: 3 test_interval: 10", ""))
    result = _run(*_TRAIN, "--backend", backend, status=1)
    assert message in result.stderr
    assert f"layer 'data' ({layer.split('type: ')[1].split()[0].strip(chr(34))})" in result.stderr
    if backend == "pycaffe":
        caffe = caffe_or_skip()
        (here / "data.prototxt").write_text(layer)
        with pytest.raises(Exception, match=r"Check failed|check failed"):
            caffe.Net(str(here / "data.prototxt"), caffe.TRAIN)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_replaces_the_batch_size(here: Path, backend: str) -> None:
    """A run with --batch 9 gives the same weights as one with batch_size: 9 in the TRAIN data layer."""
    words = ("train", "solver.prototxt", "--workers", "0", "--max-iter", "3", "--backend", backend)
    result = _run(*words, "--batch", "9", "--output", "a")
    assert " for batches of 9, " in result.stderr
    assert "batch_size: 7" in small.PLAIN
    (here / "net.prototxt").write_text(small.PLAIN.replace("batch_size: 7", "batch_size: 9"))
    _run(*words, "--output", "b")
    first, second = (caffemodel.read(here / name / "small_iter_3.caffemodel") for name in "ab")
    for one, other in zip(first.layers, second.layers, strict=True):
        for blob, same in zip(one.blobs, other.blobs, strict=True):
            np.testing.assert_allclose(blob.array(), same.array(), rtol=1e-6, atol=1e-8)
    assert result.stdout.splitlines()[1:3] == _run(*words, "--output", "c").stdout.splitlines()[1:3]  # the same test


def test_batch_of_every_data_layer() -> None:
    texts = ("data_param { batch_size: 2 }", "image_data_param { source: 'a' }", "hdf5_data_param { batch_size: 3 }")
    for type_, text in zip(("Data", "ImageData", "HDF5Data"), texts, strict=True):
        net = with_batch_size(parse_net(f'layer {{ name: "d" type: "{type_}" top: "d" top: "l" {text} }}'), 5)
        assert "batch_size: 5" in net_text(net)
    param = "python_param { module: 'm' layer: 'L' param_str: '{\"batch_size\": 2, \"source\": \"s\"}' }"
    net = with_batch_size(parse_net(f'layer {{ name: "d" type: "Python" top: "d" {param} }}'), 5)
    assert json.loads(net.layers[0].get(PythonParameter).param_str) == {"batch_size": 5, "source": "s"}


def test_batch_without_a_batch_size(here: Path) -> None:
    data = 'type: "DummyData" dummy_data_param { shape { dim: 4 dim: 1 dim: 14 dim: 14 } shape { dim: 4 } }'
    rest = small.PLAIN[small.PLAIN.index('layer { name: "conv1"') :]
    (here / "net.prototxt").write_text(f'layer {{ name: "data" top: "data" top: "label" {data} }} {rest}')
    _run(*_TRAIN)
    result = _run(*_TRAIN, "--restart", "--batch", "3", status=1)
    assert result.stderr.splitlines()[-1] == (
        "error: net.prototxt: no data layer has a batch size that --batch 3 could replace"
    )
