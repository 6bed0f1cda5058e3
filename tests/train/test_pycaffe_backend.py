"""Training with real Caffe: weights equal those of Caffe's own solver, and resumed runs are exact."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen import caffemodel
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.train.pycaffe_nets import inexact_resume_warnings
from tests.golden import solvers
from tests.support import train_support as support
from tests.support.caffe_support import caffe_or_skip
from tests.support.train_support import wait_for

pytestmark = pytest.mark.caffe
PYCAFFE = ("--backend", "pycaffe")


@pytest.fixture(scope="module", autouse=True)
def caffe_there() -> None:
    caffe_or_skip()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a completed run in `out`."""
    folder = support.folder(tmp_path_factory.mktemp("unbroken"))
    out, err = support.train(folder, *PYCAFFE)
    assert "trained to iteration 30" in out
    assert "the largest batch that fits" in err
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics file without times."""
    with path.open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


NATIVE = """
import os, sys
os.environ["GLOG_minloglevel"] = "2"
import caffe
solver = caffe.get_solver(sys.argv[1])
solver.restore(sys.argv[2])
solver.step(30 - solver.iter)
solver.snapshot()
"""


def native(folder: Path, state: str) -> None:
    """Run Caffe's own solver from a state to iteration 30; its Data layer starts with the first record."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", NATIVE, "solver.prototxt", state], cwd=folder, env=environment, check=True,
                   timeout=120)  # fmt: skip


def test_without_randomness_weights_equal_caffes_own_solver(tmp_path: Path) -> None:
    ours, theirs = (support.folder(tmp_path / name, support.PLAIN) for name in ("ours", "theirs"))
    support.train(theirs, *PYCAFFE, "--max-iter", "0")
    native(theirs, "out/small_iter_0.solverstate")
    support.train(ours, *PYCAFFE, "--snapshot-every", "0")
    name = "out/small_iter_30"
    support.assert_same(support.weights(ours / f"{name}.caffemodel"), support.weights(theirs / f"{name}.caffemodel"))
    histories = [support.history(folder / f"{name}.solverstate") for folder in (ours, theirs)]
    support.assert_same({"history": histories[0]}, {"history": histories[1]})


def test_killed_and_resumed_run_reaches_the_same_weights(tmp_path: Path, unbroken: Path) -> None:
    """The run uses an LMDB with random crops and mirroring, Dropout, momentum, and a decreasing learning rate."""
    folder = support.folder(tmp_path / "broken")
    process = support.begin(folder, *PYCAFFE)
    wait_for(process, folder / "out" / "small_iter_10.solverstate")
    process.kill()
    process.communicate()
    support.train(folder, *PYCAFFE, "--resume")
    for iteration in (20, 30):
        name = f"out/small_iter_{iteration}.caffemodel"
        assert (folder / name).read_bytes() == (unbroken / name).read_bytes()
    state = "out/small_iter_30.solverstate"
    assert (folder / state).read_bytes() == (unbroken / state).read_bytes()
    assert rows(folder / "out" / "small_metrics.csv") == rows(unbroken / "out" / "small_metrics.csv")


def test_run_with_iter_size_resumes_exactly(tmp_path: Path) -> None:
    solver = support.SOLVER.replace("max_iter: 30", "max_iter: 12 iter_size: 3").replace("snapshot: 10", "snapshot: 5")
    folder = support.folder(tmp_path, solver=solver)
    support.train(folder, *PYCAFFE, "--output", "a")
    support.train(folder, *PYCAFFE, "--output", "b", "--resume", "a/small_iter_5.solverstate")
    name = "small_iter_12.caffemodel"
    assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes()
    first, second = (rows(folder / name / "small_metrics.csv") for name in "ab")
    assert first[5:] == second


AUGMENTED = """
layer { name: "data" type: "Python" top: "data" top: "label" include { phase: TRAIN } python_param {
  module: "prototxt_gen.data.caffe_layer" layer: "AugmentedData"
  param_str: '{"source": "set", "batch_size": 7, "seed": 4, "workers": 2, "augment":
    {"crop": 12, "pad": 1, "mirror": true, "brightness": 0.2, "scale": [0.004]}}' } }
"""


def test_run_with_augmented_data_resumes_exactly_from_another_folder(tmp_path: Path) -> None:
    first = support.RANDOM.index("layer {", support.RANDOM.index("layer {") + 1)
    net = AUGMENTED.replace("\n    {", " {") + support.RANDOM[first:]
    folder = support.folder(tmp_path / "there", net)
    here = tmp_path / "here"
    here.mkdir()
    (here / "solver.prototxt").write_text(
        (folder / "solver.prototxt").read_text().replace("net.prototxt", f"{folder}/net.prototxt")
    )
    (here / "solver.prototxt").rename(folder / "absolute.prototxt")
    solver = str(folder / "absolute.prototxt")
    for options in (("--output", "a"), ("--output", "b", "--resume", "a/small_iter_10.solverstate")):
        support.train(here, *PYCAFFE, *options, solver=solver)
    name = "small_iter_30.caffemodel"
    assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes()
    (data,) = (layer for layer in caffemodel.read(here / "a" / name).layers if layer.name == "data")
    assert b'"source": "set"' in bytes(data.message(130) or b"")


def test_inexact_resume_is_reported() -> None:
    net = parse_net(
        support.RANDOM
        + 'layer { name: "w" type: "WindowData" top: "x" top: "y" } layer { name: "p" type: "Python" top: "z" }'
        + 'layer { name: "r" type: "LSTM" bottom: "x" bottom: "y" top: "h" }'
    )
    told = list(inexact_resume_warnings(net.at("TRAIN")))
    assert [line.partition(":")[0] for line in told] == [
        "layer 'w' (WindowData)",
        "layer 'p' (Python)",
        "layer 'r' (LSTM)",
    ]


def test_test_scores_equal_caffe(unbroken: Path) -> None:
    """The last scores equal those that Caffe computes from the last snapshot on the same test batches."""
    caffe = caffe_or_skip()
    here = Path.cwd()
    os.chdir(unbroken)
    try:
        net = caffe.Net("net.prototxt", str(unbroken / "out/small_iter_30.caffemodel"), caffe.TEST)
        for _ in range(3 * 3):  # the three tests before
            net.forward()
        found = [{name: float(blob) for name, blob in net.forward().items()} for _ in range(3)]
    finally:
        os.chdir(here)
    last = rows(unbroken / "out" / "small_metrics.csv")[-1]
    assert last["iteration"] == "30"
    for name in ("accuracy", "loss"):
        expected = np.mean([each[name] for each in found])
        assert float(last[f"test/{name}"]) == pytest.approx(expected, rel=1e-5)


def test_snapshot_holds_the_original_net(tmp_path: Path, unbroken: Path) -> None:
    found = caffemodel.read(unbroken / "out" / "small_iter_10.caffemodel")
    types = {layer.name: layer.type for layer in found.layers}
    assert types["data"] == "Data"
    assert types["drop1"] == "Dropout"
    assert not any(type_ == "Python" for type_ in types.values())
    (data,) = (layer for layer in found.layers if layer.name == "data")
    assert {100, 107} <= data.fields  # transform_param, data_param
    state = caffemodel.read_solverstate(unbroken / "out" / "small_iter_10.solverstate")
    assert state.learned_net == "out/small_iter_10.caffemodel"


def test_caffe_itself_resumes_from_a_snapshot(tmp_path: Path) -> None:
    """Without randomness, and with whole iterations per epoch, Caffe's own solver reaches the same weights."""
    net = support.PLAIN.replace("batch_size: 7", "batch_size: 9")
    folder = support.folder(tmp_path, net)
    support.train(folder, *PYCAFFE)
    ours = support.weights(folder / "out/small_iter_30.caffemodel")
    native(folder, "out/small_iter_10.solverstate")
    support.assert_same(support.weights(folder / "out/small_iter_30.caffemodel"), ours)


def test_hdf5_snapshots_resume(tmp_path: Path, unbroken: Path) -> None:
    folder = support.folder(tmp_path, solver=support.SOLVER + "snapshot_format: HDF5")
    support.train(folder, *PYCAFFE, "--max-iter", "10")
    support.train(folder, *PYCAFFE, "--resume")
    ours = support.weights(folder / "out" / "small_iter_30.caffemodel.h5")
    support.assert_same(ours, support.weights(unbroken / "out" / "small_iter_30.caffemodel"))


def test_fine_tuning_reports_matched_layers(tmp_path: Path, unbroken: Path) -> None:
    folder = support.folder(tmp_path, support.RANDOM.replace('"ip2"', '"ip_new"'))
    given = unbroken / "out" / "small_iter_30.caffemodel"
    _, err = support.train(folder, *PYCAFFE, "--weights", str(given), "--max-iter", "0")
    assert "layer 'conv1': matched, 4x1x3x3, 4" in err
    assert "layer 'ip_new': not in the file: keeps its filler, 4x12, 4" in err
    assert "layer 'ip2': only in the file: not used" in err
    support.train(folder, *PYCAFFE, "--weights", str(given), "--max-iter", "1", "--output", "one")
    (folder / "solver.prototxt").write_text(support.SOLVER.replace("0.02", "0"))
    support.train(folder, *PYCAFFE, "--weights", str(given), "--max-iter", "1", "--output", "none")
    kept, learned = support.weights(folder / "none/small_iter_1.caffemodel"), support.weights(given)
    support.assert_same({"conv1": kept["conv1"], "ip1": kept["ip1"]}, {n: learned[n] for n in ("conv1", "ip1")})
    moved = support.weights(folder / "one/small_iter_1.caffemodel")
    assert not np.array_equal(moved["conv1"][0], learned["conv1"][0])


def test_new_run_over_an_earlier_one_is_refused(unbroken: Path) -> None:
    _, err = support.train(unbroken, *PYCAFFE, status=1)
    assert "is of an earlier run: --resume continues it" in err
    _, err = support.train(unbroken, *PYCAFFE, "--resume", "--weights", "x", status=1)
    assert "give --resume or --weights, not both" in err


def test_golden_solver_files_match_this_caffe(tmp_path: Path) -> None:
    golden = solvers.load()
    for case in (
        "SGD/multistep",
        "Nesterov/L1",
        "AdaGrad/iter_size",
        "RMSProp/clip",
        "AdaDelta/poly",
        "Adam/everything",
    ):
        for key, array in solvers._run(case, golden).items():
            np.testing.assert_allclose(array, golden[f"{case}.{key}"], rtol=1e-4, atol=1e-6, err_msg=f"{case}.{key}")
