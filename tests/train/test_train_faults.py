"""Common mistakes with `prototxt-gen train`: one clear sentence, exit code 1, and no traceback."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest
from click.testing import CliRunner, Result

from prototxt_gen.cli import cli
from tests.support import train_support as small

PLAIN, SOLVER = small.PLAIN, small.SOLVER
TRAIN_DATA = '"set" batch_size: 7'
UNTESTED = small.SOLVER.replace("test_iter: 3 test_interval: 10", "")
TWO_CLASSES = PLAIN.replace("inner_product_param { num_output: 4 weight", "inner_product_param { num_output: 2 weight")
SLICED = TWO_CLASSES.replace('bottom: "label" top: "loss"', 'bottom: "same" top: "loss"').replace(
    'layer { name: "accuracy"',
    'layer { name: "copy" type: "Power" bottom: "label" top: "same" }\nlayer { name: "accuracy"',
)
"""A net whose labels pass through another layer before the loss."""
PYTHON_DATA = PLAIN.replace(
    'type: "Data" top: "data" top: "label" include { phase: TRAIN }',
    'type: "Python" top: "data" top: "label" include { phase: TRAIN } '
    'python_param { module: "nosuch" layer: "Nosuch" }',
)


def _typed(*words: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "0")
        return CliRunner().invoke(cli, ["train", "solver.prototxt", "--workers", "0", *words], catch_exceptions=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder with a valid data set, net and solver."""
    monkeypatch.chdir(small.folder(tmp_path, PLAIN))
    lmdb.open(str(tmp_path / "empty"), map_size=1 << 20).close()
    (tmp_path / "file").write_text("in the place of a folder")
    return tmp_path


def _swap(old: str, new: str, text: str = PLAIN) -> str:
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(("net", "solver", "words", "expected"), [
    (_swap('"set"', '"gone"'), SOLVER, (), "layer 'data' (Data): gone does not exist"),
    (_swap('"set" batch_size: 20', '"gone" batch_size: 20'), SOLVER, (), "layer 'data' (Data): gone does not exist"),
    (_swap('"set"', '"empty"'), SOLVER, (), "layer 'data' (Data): empty holds no samples"),
    (_swap('"set"', '"set.npz"'), SOLVER, (), "layer 'data' (Data): set.npz is not an LMDB"),
    (_swap("batch_size: 7", "batch_size: 0"), SOLVER, (), "layer 'data' (Data): it needs a batch_size of at least 1"),
    (_swap("scale: 0.00390625", 'mean_file: "gone.binaryproto"'), SOLVER, (),
     "layer 'data' (Data): gone.binaryproto: cannot be read"),
    (TWO_CLASSES, SOLVER, (), "layer 'accuracy' (Accuracy): label "),
    (TWO_CLASSES, UNTESTED, (),
     "of its bottom 'label' is no class: its bottom 'ip2' has 2, 0 to 1"),
    (SLICED, UNTESTED, (), "layer 'loss' (SoftmaxWithLoss): PyTorch: Target"),
    (PYTHON_DATA, SOLVER, (), "layer 'data' (Python): the shape of its tops is defined by Python code"),
    (_swap('"ReLU"', '"RELUU"'), SOLVER, (), "layer 'relu1' (RELUU): the type is not known; did you mean 'ReLU'"),
    (PLAIN.split('layer { name: "loss"')[0], SOLVER, (), "net.prototxt: it has no loss in phase TRAIN"),
    (PLAIN, _swap("base_lr: 0.02", "base_lr: 1e30", SOLVER), (), "the loss of iteration 1 is nan"),
    (PLAIN, f'{SOLVER} type: "Adan"', (), "unknown solver type 'Adan'; did you mean 'Adam'?"),
    (PLAIN, _swap('net: "net.prototxt"', "", SOLVER), (), "it has 0 train nets; a solver needs exactly one"),
    (PLAIN, _swap('"net.prototxt"', '"gone.prototxt"', SOLVER), (), "net 'gone.prototxt' does not exist, neither in"),
    (PLAIN, _swap("test_interval: 10", "", SOLVER), (), "test_iter needs a test_interval of at least 1"),
    (PLAIN, _swap('"multistep"', '"step"', SOLVER), (), "lr_policy 'step' needs stepsize"),
    (PLAIN, f"{SOLVER} }}", (), "'}' closes nothing"),
    (PLAIN, _swap("weight_decay", "weight_decy", SOLVER), (), "no field 'weight_decy'; did you mean 'weight_decay'?"),
    (PLAIN, _swap("momentum", "momentun", SOLVER), (), "no field 'momentun'; did you mean 'momentum'?"),
    (_swap("num_output", "num_ouput"), SOLVER, (), "no field 'num_ouput'; did you mean 'num_output'?"),
    (PLAIN, _swap("out/small", "~/small", SOLVER), (), "snapshot_prefix '~/small': Caffe does not replace ~"),
    (PLAIN, SOLVER, ("--backend", "pycaffe", "--precision", "bf16"), "backend pycaffe has no --precision bf16"),
    (PLAIN, SOLVER, ("--backend", "pycaffe", "--memory-efficient"), "backend pycaffe has no --memory-efficient"),
    (PLAIN, SOLVER, ("--gpu", "77"), "there is no GPU 77"),
    (PLAIN, SOLVER, ("--output", "file/out"), "file/out: not writable: Not a directory"),
    (PLAIN, SOLVER, ("--resume",), "there is no complete snapshot out/small_iter_* to resume: leave out --resume"),
    (PLAIN, SOLVER, ("--resume", "gone.solverstate"), "gone.solverstate: cannot be read: No such file"),
    (PLAIN, SOLVER, ("--resume", "net.prototxt"), "net.prototxt: is text (a .prototxt perhaps), not a .solverstate"),
    (PLAIN, SOLVER, ("--weights", "gone.caffemodel"), "gone.caffemodel: cannot be read: No such file"),
    (PLAIN, SOLVER, ("--weights", "net.prototxt"), "net.prototxt: is text (a .prototxt perhaps), not a .caffemodel"),
])  # fmt: skip
def test_each_error_is_one_sentence(here: Path, net: str, solver: str, words: tuple[str, ...], expected: str) -> None:
    (here / "net.prototxt").write_text(net)
    (here / "solver.prototxt").write_text(solver)
    result = _typed(*words)
    assert result.exit_code == 1
    _, found, told = result.stderr.rpartition("error: ")
    assert found
    assert expected in told
    assert not list(here.glob("out/*.solverstate")) or "iteration 1" in told


def test_weights_of_another_net_are_refused(here: Path) -> None:
    from prototxt_gen import caffemodel
    from prototxt_gen.caffemodel import NewLayer

    caffemodel.write(here / "other.caffemodel", [NewLayer("fc8", "InnerProduct", [np.zeros((4, 6))])])
    result = _typed("--weights", "other.caffemodel")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        "error: other.caffemodel: none of its 1 layers with weights is in this net, by name",
    )


def test_unusual_but_valid_nets_train(here: Path) -> None:
    """A batch larger than the data set, a solver without tests, and `solver_mode: GPU` on a machine without a GPU."""
    (here / "net.prototxt").write_text(_swap("batch_size: 7", "batch_size: 100"))
    (here / "solver.prototxt").write_text(_swap("test_iter: 3", "solver_mode: GPU", SOLVER))
    result = _typed("--max-iter", "2")
    assert result.exit_code == 0, result.stderr
    assert "trained to iteration 2" in result.stdout


def test_unknown_solver_field_is_reported(here: Path) -> None:
    (here / "solver.prototxt").write_text(f"{SOLVER} plateau_winsize: 5")
    result = _typed("--max-iter", "0")
    assert result.exit_code == 0
    assert "warning: solver.prototxt: line 5: plateau_winsize: " in result.stderr


def test_full_disk_is_reported(here: Path) -> None:
    """A file size limit has the effect of a full disk: every write beyond 2 KB fails."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        result = _typed("--max-iter", "2", "--output", "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: the snapshot of iteration 2 could not be written to full: ")
    assert last.endswith("File too large")
    assert not list((here / "full").glob("*state*"))
