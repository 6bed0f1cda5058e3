"""Solvers: their train and test nets and the states these run in. Source: src/caffe/solver.cpp."""

from __future__ import annotations

from pathlib import Path

import pytest

from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.ir import Net
from prototxt_gen.net.render import solver_text
from prototxt_gen.net.solver import Solver, is_solver, read_solver, solver_from_tree
from prototxt_gen.text import parse
from tests.support.caffe_support import caffe_or_skip

NET = """
name: "net"
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 2 dim: 3 } } }
layer { name: "train" type: "ReLU" bottom: "data" top: "train" include { phase: TRAIN } }
layer { name: "test" type: "ReLU" bottom: "data" top: "test" include { phase: TEST } }
layer { name: "a" type: "ReLU" bottom: "data" top: "a" include { stage: "a" } }
layer { name: "high" type: "ReLU" bottom: "data" top: "high" include { min_level: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 1 } }
"""
BASE = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 1 solver_mode: CPU snapshot_after_train: false\n'


def solver(text: str, folder: Path) -> Solver:
    (folder / "net.prototxt").write_text(NET)
    (folder / "other.prototxt").write_text(NET.replace('"net"', '"other"'))
    (folder / "solver.prototxt").write_text(BASE + text)
    return read_solver(folder / "solver.prototxt")


def told(net: Net) -> str:
    """Return the net's name and those of its layers that rules decide on."""
    return " ".join([net.name, *(layer.name for layer in net.layers if layer.name in ("train", "test", "a", "high"))])


INLINE = NET.replace('"net"', '"inline"')
CASES = {
    'net: "net.prototxt"': ("net train", []),
    'net: "net.prototxt" test_iter: 1 test_iter: 2 test_interval: 1': ("net train", ["net test", "net test"]),
    'train_net: "net.prototxt" test_net: "other.prototxt" test_iter: 3 test_interval: 1': ("net train", ["other test"]),
    'net: "net.prototxt" test_net: "other.prototxt" test_iter: [1, 1] test_interval: 1': (
        "net train",
        ["other test", "net test"],
    ),
    'net: "net.prototxt" train_state { stage: "a" level: 3 }': ("net train a high", []),
    'net: "net.prototxt" train_state { phase: TEST }': ("net test", []),
    'net: "net.prototxt" test_iter: [1, 1] test_interval: 1 test_state { stage: "a" } test_state { level: 4 }': (
        "net train",
        ["net test a", "net test high"],
    ),
    f"net_param {{ {INLINE} }} test_iter: 1 test_interval: 1": ("inline train", ["inline test"]),
    f"train_net_param {{ {INLINE} }} test_net_param {{ {NET} }} test_iter: 1 test_interval: 1": (
        "inline train",
        ["net test"],
    ),
    f'test_net: "other.prototxt" net_param {{ {NET} }} test_net_param {{ {INLINE} }} test_iter: [1, 2, 3] '
    "test_interval: 1": ("net train", ["inline test", "other test", "net test"]),
    f'net_param {{ {INLINE} state {{ phase: TEST stage: "a" }} }}': ("inline test a", []),
    f'net_param {{ {INLINE} state {{ level: 3 stage: "a" }} }} test_iter: 1 test_interval: 1 '
    "test_state { level: 0 }": ("inline train a high", ["inline test a"]),
}


@pytest.mark.parametrize("text", CASES)
def test_nets_and_their_states(text: str, tmp_path: Path) -> None:
    train, tests = CASES[text]
    made = solver(text, tmp_path)
    assert told(made.read_train_net()) == train
    assert [told(net) for net in made.read_test_nets()] == tests


@pytest.mark.caffe
@pytest.mark.parametrize("text", CASES)
def test_caffe_reads_the_same_nets(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caffe = caffe_or_skip()
    monkeypatch.chdir(tmp_path)
    train, tests = CASES[text]
    solver(text, tmp_path)
    theirs = caffe.get_solver("solver.prototxt")
    names = ("train", "test", "a", "high")
    assert [n for n in theirs.net._layer_names if n in names] == train.split()[1:]
    assert [[n for n in net._layer_names if n in names] for net in theirs.test_nets] == [t.split()[1:] for t in tests]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "it has 0 train nets; a solver needs exactly one"),
        ('net: "net.prototxt" train_net: "net.prototxt"', "it has 2 train nets"),
        (f'net: "net.prototxt" net_param {{ {NET} }}', "it has 2 train nets"),
    ],
)
def test_exactly_one_train_net(text: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match=rf"solver\.prototxt: {error}"):
        solver(text, tmp_path).read_train_net()


@pytest.mark.parametrize(
    "text",
    [
        'net: "net.prototxt" test_net: "net.prototxt" test_net: "other.prototxt" test_iter: 1',
        'train_net: "net.prototxt" test_iter: 1',
        'net: "net.prototxt" test_iter: 1 test_state { } test_state { }',
    ],
)
def test_each_test_net_needs_a_test_iter_and_a_state(text: str, tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match=r"solver\.prototxt: \d test_iter, \d test nets and \d test states"):
        solver(text, tmp_path).read_test_nets()


@pytest.mark.parametrize(
    ("fields", "type_"),
    [
        ("", "SGD"),
        ('type: "Adam"', "Adam"),
        ("solver_type: NESTEROV", "Nesterov"),
        ("solver_type: ADAGRAD", "AdaGrad"),
        ("solver_type: RMSPROP", "RMSProp"),
        ("solver_type: ADADELTA", "AdaDelta"),
        ("solver_type: ADAM", "Adam"),
        ("solver_type: SGD", "SGD"),
        ("solver_type: 1", "Nesterov"),
    ],
)
def test_type_and_solver_type(fields: str, type_: str) -> None:
    assert solver_from_tree(parse(fields)).type == type_


def test_nets_are_found_from_the_working_folder_or_beside_the_solver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = solver('net: "net.prototxt"', tmp_path)
    assert made.read_train_net().name == "net"
    work = tmp_path / "work"
    work.mkdir()
    (work / "net.prototxt").write_text('name: "of the working folder"')
    monkeypatch.chdir(work)
    assert made.read_train_net().name == "of the working folder"
    with pytest.raises(PrototxtError, match=r"solver\.prototxt: net 'gone\.prototxt' does not exist"):
        solver('net: "gone.prototxt"', tmp_path).read_train_net()


def test_unknown_fields_are_kept_with_line(tmp_path: Path) -> None:
    made = solver('net: "net.prototxt"\nplateau_winsize: 3\nbase_lr: 2', tmp_path)
    assert [(path, extra.line) for path, extra in made.params.walk_extras()] == [("plateau_winsize", 3), ("base_lr", 4)]


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(PrototxtError, match=r"solver\.prototxt: the file ends inside net \{") as caught:
        solver("net: {", tmp_path)
    assert caught.value.line == 2
    with pytest.raises(PrototxtError, match=r"solver\.prototxt, net_param: line 3: the value of layer must be"):
        solver('net_param {\n layer: "x" }', tmp_path).read_train_net()


def test_solvers_are_distinguished_from_nets() -> None:
    assert is_solver(parse(BASE))
    assert is_solver(parse('net: "x"'))
    assert not is_solver(parse(NET))
    assert not is_solver(parse('name: "empty"'))
    assert not is_solver(parse('input: "data" debug_info: true'))


def test_the_text_of_a_solver_is_read_back() -> None:
    fields = (
        'test_iter: 3 base_lr: 0.1 stepvalue: [3, 4] test_state { stage: "a" } weights: "w" solver_mode: CPU odd: 1'
    )
    params = solver_from_tree(parse(fields)).params
    text = solver_text(params, ("a comment", "another"))
    assert text.startswith("# a comment\n# another\n")
    assert solver_from_tree(parse(text)).params == params
