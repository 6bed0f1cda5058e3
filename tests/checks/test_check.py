"""Every rule of `check` finds its problem in a small net, with the line, and none in the corrected net."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from prototxt_gen.checks import NetMode, Problem, check_net, check_solver, intended_modes
from prototxt_gen.common.errors import NetError
from prototxt_gen.net.lowering_checks import analyse_for_conversion
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.solver import read_solver
from prototxt_gen.text import parse


def problems(text: str, *, strict: bool = False) -> list[Problem]:
    return check_net(parse_net(text), parse(text), strict=strict)


def layer(type_: str, name: str, bottoms: str, tops: str, params: str = "") -> str:
    """Return a layer in one line."""
    ends = [f'{what}: "{blob}"' for what, blobs in (("bottom", bottoms), ("top", tops)) for blob in blobs.split()]
    return f'layer {{ name: "{name}" type: "{type_}" {" ".join(ends)} {params} }}\n'


IMAGE = 'input: "data" input_shape { dim: 2 dim: 3 dim: 8 dim: 8 }\n'
FILLED = 'weight_filler { type: "msra" }'
CONV = f"convolution_param {{ num_output: 4 kernel_size: 3 {FILLED} }}"


def fed(batch: int = 64) -> str:
    """Return images and labels of the TRAIN phase."""
    shapes = f"shape {{ dim: {batch} dim: 3 dim: 8 dim: 8 }} shape {{ dim: {batch} }}"
    return layer("DummyData", "data", "", "data label", f"dummy_data_param {{ {shapes} }}")


HEAD = layer("InnerProduct", "ip", "conv", "ip", f"inner_product_param {{ num_output: 5 {FILLED} }}") + layer(
    "SoftmaxWithLoss", "loss", "ip label", "loss"
)


def training(body: str, batch: int = 64) -> str:
    """Return a net that learns: `body` makes `conv` of `data`, from line 2 on."""
    return fed(batch) + body + HEAD


class Case(NamedTuple):
    code: str
    severity: str
    line: int
    says: str
    wrong: str
    right: str


def bn(params: str = "", stats: str = "lr_mult: 0 decay_mult: 0", batch: int = 64) -> str:
    specs = f"param {{ lr_mult: 1 }} param {{ lr_mult: 1 }} param {{ {stats} }} param {{ {stats} }}"
    own = f"bn_param {{ slope_filler {{ value: 1 }} {params} }}"
    made = layer("BN", "conv/bn", "conv", "conv/bn", f"{specs} {own}")
    body = layer("Convolution", "conv", "data", "conv", CONV) + made
    return training(body, batch).replace('bottom: "conv" top: "ip"', 'bottom: "conv/bn" top: "ip"')


def shared(kernel: int, spec: str = "") -> str:
    named = f'param {{ name: "w" {spec} }}'
    one = layer("Convolution", "a", "data", "a", f'param {{ name: "w" lr_mult: 1 }} {CONV}')
    own = f"convolution_param {{ num_output: 4 kernel_size: {kernel} {FILLED} }}"
    return IMAGE + one + layer("Convolution", "b", "data", "b", f"{named} {own}")


RELU = layer("ReLU", "relu", "data", "relu")
SOUND = training(layer("Convolution", "conv", "data", "conv", CONV))
OLD = 'layers { name: "old" type: RELU bottom: "data" top: "old" }\n'
ONE = "convolution_param { num_output: 1 kernel_size: 1 }"
BARE = "convolution_param { num_output: 4 kernel_size: 3 }"
EITHER = "include { phase: TRAIN } exclude { phase: TEST }"
CASES = (
    Case("bad-value", "error", 2, "MAXX", IMAGE + layer("Pooling", "p", "data", "p", "pooling_param { pool: MAXX }"),
         IMAGE + layer("Pooling", "p", "data", "p", "pooling_param { pool: MAX kernel_size: 2 }")),
    Case("bad-value", "error", 2, "more than once",
         IMAGE + layer("Convolution", "c", "data", "c", ONE.replace("{", "{ num_output: 2")),
         IMAGE + layer("Convolution", "c", "data", "c", ONE)),
    Case("unknown-field", "warning", 2, "no field 'kernel_radius'",
         IMAGE + layer("Convolution", "c", "data", "c", ONE.replace("}", "kernel_radius: 1 }")),
         IMAGE + layer("Convolution", "c", "data", "c", "convolution_param { num_output: 1 kernel_size: 1 }")),
    Case("unknown-field", "error", 2, "did you mean 'kernel_size'",
         IMAGE + layer("Convolution", "c", "data", "c", "convolution_param { num_output: 1 kernal_size: 1 }"),
         IMAGE + layer("Convolution", "c", "data", "c", "convolution_param { num_output: 1 kernel_size: 1 }")),
    Case("unknown-type", "error", 2, "did you mean 'Convolution'", IMAGE + layer("Convoltion", "c", "data", "c"),
         IMAGE + RELU),
    Case("unknown-type", "warning", 2, "not known", IMAGE + layer("ConvolutionLocal", "c", "data", "c"), IMAGE + RELU),
    Case("unknown-filler", "error", 2, "weight_filler: there is no filler 'xavir'; did you mean 'xavier'",
         IMAGE + layer("Convolution", "c", "data", "c", CONV.replace("msra", "xavir")),
         IMAGE + layer("Convolution", "c", "data", "c", CONV)),
    Case("unknown-filler", "warning", 2, "there is no filler 'orthogonal'",
         IMAGE + layer("Convolution", "c", "data", "c", CONV.replace("msra", "orthogonal")),
         IMAGE + layer("Convolution", "c", "data", "c", CONV)),
    Case("unknown-type", "error", 2, "no type", IMAGE + layer("", "c", "data", "c"), IMAGE + RELU),
    Case("foreign-parameter", "warning", 2, "pooling_param",
         IMAGE + layer("ReLU", "r", "data", "r", "pooling_param { kernel_size: 2 }"), IMAGE + RELU),
    Case("include-and-exclude", "error", 2, "both", IMAGE + layer("ReLU", "r", "data", "r", EITHER),
         IMAGE + layer("ReLU", "r", "data", "r", "include { phase: TEST }")),
    Case("layer-phase", "warning", 2, "include { phase: TRAIN }",
         IMAGE + layer("ReLU", "r", "data", "r", "phase: TRAIN"), IMAGE + RELU),
    Case("mixed-versions", "error", 3, "layers", IMAGE + RELU + OLD, IMAGE + OLD),
    Case("count", "error", 2, "propagate_down",
         IMAGE + layer("ReLU", "r", "data", "r", "propagate_down: true propagate_down: false"),
         IMAGE + layer("ReLU", "r", "data", "r", "propagate_down: true")),
    Case("dangling-bottom", "error", 2, "did you mean 'data'", IMAGE + layer("ReLU", "r", "dta", "r"), IMAGE + RELU),
    Case("dangling-bottom", "error", 2, "comes later in the file",
         IMAGE + layer("ReLU", "a", "b", "a") + layer("ReLU", "b", "a", "b"), IMAGE + RELU),
    Case("made-twice", "error", 3, "is already written by",
         IMAGE + RELU + layer("Sigmoid", "s", "data", "relu"), IMAGE + RELU + layer("Sigmoid", "s", "relu", "relu")),
    Case("shared-memory", "warning", 3, "layer 't' in line 4 reads 'data' afterwards",
         IMAGE + layer("Flatten", "f", "data", "f") + layer("ReLU", "r", "f", "f") + layer("TanH", "t", "data", "t"),
         IMAGE + layer("Flatten", "f", "data", "f") + layer("TanH", "t", "data", "t") + layer("ReLU", "r", "f", "f")),
    Case("duplicate-name", "error", 3, "weights are found by layer name",
         IMAGE + layer("Convolution", "c", "data", "c", CONV) + layer("Convolution", "c", "data", "d", CONV),
         IMAGE + layer("Convolution", "c", "data", "c", CONV) + layer("Convolution", "d", "data", "d", CONV)),
    Case("duplicate-name", "warning", 3, "line 2", IMAGE + RELU + layer("ReLU", "relu", "relu", "again"),
         IMAGE + RELU + layer("ReLU", "other", "relu", "again")),
    Case("arity", "error", 2, "2 bottoms", IMAGE + layer("BatchReindex", "e", "data", "e"),
         IMAGE + layer("Eltwise", "e", "data data", "e")),
    Case("loss-without-label", "error", 2, "no label", IMAGE + layer("SoftmaxWithLoss", "l", "data", "l"),
         IMAGE + layer("Softmax", "l", "data", "l")),
    Case("shape", "error", 3, "SUM needs equal shapes",
         IMAGE + layer("Convolution", "c", "data", "c", CONV) + layer("Eltwise", "e", "data c", "e"),
         IMAGE + RELU + layer("Eltwise", "e", "data relu", "e")),
    Case("in-place", "error", 2, "in place", IMAGE + layer("Convolution", "c", "data", "data", CONV),
         IMAGE + layer("Convolution", "c", "data", "c", CONV)),
    Case("unused-input", "warning", 0, "'more'",
         'input: "data" input: "more" input_shape { dim: 1 dim: 3 } input_shape { dim: 1 }\n' + RELU, IMAGE + RELU),
    Case("unused-top", "warning", 2, "'conv2'",
         training("".join(layer("Convolution", name, "data", name, CONV) for name in ("conv2", "conv"))), SOUND),
    Case("not-checked", "note", 1, "not checked",
         layer("HDF5Data", "data", "", "data", 'hdf5_data_param { source: "a" batch_size: 4 }') + RELU, IMAGE + RELU),
    Case("no-loss", "warning", 0, "loss",
         layer("Data", "data", "", "data", 'include { phase: TRAIN } data_param { source: "a" batch_size: 4 }') + RELU,
         SOUND),
    Case("frozen-bn", "warning", 3, "frozen", bn("frozen: true"), bn()),
    Case("learning-statistics", "warning", 3, "lr_mult: 0", bn(stats="lr_mult: 1"), bn()),
    Case("learning-statistics", "error", 2, "lr_mult: 0",
         IMAGE + layer("BatchNorm", "b", "data", "b", "param { decay_mult: 0 }"),
         IMAGE + layer("BatchNorm", "b", "data", "b", "param { lr_mult: 0 }")),
    Case("small-batch", "warning", 3, "16 images", bn(batch=16), bn(batch=32)),
    Case("no-filler", "warning", 2, "weight_filler",
         training(layer("Convolution", "conv", "data", "conv", BARE)), SOUND),
    Case("too-many-params", "error", 2, "it has 3 param",
         IMAGE + layer("Convolution", "c", "data", "c", f"param {{}} param {{}} param {{}} {CONV}"),
         IMAGE + layer("Convolution", "c", "data", "c", f"param {{}} param {{}} {CONV}")),
    Case("shared-shape", "error", 3, "4x3x5x5 and 4x3x3x3", shared(5), shared(3)),
    Case("shared-multiplier", "error", 3, "lr_mult", shared(3, "lr_mult: 2"), shared(3, "lr_mult: 1")),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}:{case.says}")
def test_rule_finds_its_problem_only_in_the_wrong_net(case: Case) -> None:
    found = [problem for problem in problems(case.wrong) if problem.code == case.code]
    assert [(one.severity, one.line) for one in found] == [(case.severity, case.line)], problems(case.wrong)
    assert case.says in str(found[0])
    assert not [problem for problem in problems(case.right) if problem.code == case.code]


def test_a_correct_net_has_no_problems() -> None:
    assert problems(SOUND) == []


def test_all_problems_are_reported_at_once() -> None:
    text = IMAGE + layer("Convoltion", "a", "dta", "a") + layer("BatchReindex", "b", "data", "b")
    assert {one.code for one in problems(text)} >= {"unknown-type", "dangling-bottom", "arity"}


def test_only_root_causes_are_reported() -> None:
    text = IMAGE + layer("Eltwise", "e", "data", "e") + layer("ReLU", "r", "e", "r") + layer("ReLU", "s", "r", "s")
    assert [one.layer for one in problems(text)] == ["e"]


def test_strict_turns_warnings_into_errors() -> None:
    text = IMAGE + layer("NoSuchType", "c", "data", "c", "foo: 1")
    assert {one.severity for one in problems(text)} == {"warning"}
    assert {one.severity for one in problems(text, strict=True)} == {"error"}


def test_form_of_messages() -> None:
    (problem,) = problems(IMAGE + layer("BatchReindex", "A/fusion", "data", "e"))
    assert str(problem) == "line 2: layer 'A/fusion' (BatchReindex): it takes 2 bottoms, not 1"


def test_problems_name_their_phase() -> None:
    train = layer("DummyData", "d", "", "data", "include { phase: TRAIN } dummy_data_param { shape { dim: 4 dim: 9 } }")
    test = layer("DummyData", "d", "", "other", "include { phase: TEST } dummy_data_param { shape { dim: 4 dim: 9 } }")
    found = [one for one in problems(train + test + RELU) if one.code == "dangling-bottom"]
    assert [(one.layer, one.phase) for one in found] == [("relu", "TEST")]
    both = [one for one in problems(train + test + layer("ReLU", "r", "none", "r")) if one.code == "dangling-bottom"]
    assert [one.phase for one in both] == [""]


def test_a_phase_without_data_is_not_checked() -> None:
    train = layer("DummyData", "d", "", "data", "include { phase: TRAIN } dummy_data_param { shape { dim: 4 dim: 9 } }")
    assert [run.phase for run in intended_modes(parse_net(train + RELU))] == ["TRAIN"]
    assert intended_modes(parse_net(IMAGE + RELU)) == [NetMode("TEST")]


FORMS = (
    ("more bottoms", layer("InnerProduct", "e", "data data", "e", "inner_product_param { num_output: 3 }")),
    ("three tops", layer("SoftmaxWithLoss", "e", "data data", "e f g")),
    ("a top more", layer("SmoothL1Loss", "e", "data data", "e f", "loss_weight: 1 loss_weight: 0")),
    ("a third bottom", layer("SigmoidCrossEntropyLoss", "e", "data data data", "e")),
    ("one bottom", layer("Eltwise", "e", "data", "e", "eltwise_param { coeff: -1 }")),
    ("repeated fields", layer("Pooling", "e", "data", "e", "pooling_param { kernel_size: 2 kernel_size: 3 }")),
    ("bottoms of a Python class", layer("Python", "e", "data data data data", "e",
     'python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "feat_stride: 16" }')),
    ("tops of a data layer", layer("AnnotatedData", "e", "", "e f g", "transform_param { "
     "resize_param { height: 8 width: 8 } resize_param { height: 9 width: 9 } mean_value: [1, 2, 3] } "
     "data_param { batch_size: 2 }")),
    ("parameters of another type", layer("VideoData", "e", "", "e f", "image_data_param { show_data: 0 }")),
)  # fmt: skip


@pytest.mark.parametrize(("what", "text"), FORMS, ids=[what for what, _ in FORMS])
def test_unknown_form_of_a_known_type_is_a_warning(what: str, text: str) -> None:
    found = problems(IMAGE + text)
    assert "unknown-form" in {one.code for one in found}
    assert {one.severity for one in found} <= {"warning", "note"}
    assert "error" in {one.severity for one in problems(IMAGE + text, strict=True)}
    with pytest.raises(NetError):
        analyse_for_conversion(parse_net(IMAGE + text).at("TEST"))


SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 10 momentum: 0.9\n'


def solver_problems(folder: Path, text: str, net: str = SOUND) -> list[Problem]:
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(text)
    solver = read_solver(folder / "solver.prototxt")
    return check_solver(solver, parse(text))


@pytest.mark.parametrize(
    ("code", "old", "new"),
    [
        ("train-net", 'net: "net.prototxt"', ""),
        ("train-net", "base_lr", 'train_net: "net.prototxt" base_lr'),
        ("lr-policy", '"fixed"', '"fixd"'),
        ("unknown-form", '"fixed"', '"plateau"'),
        ("lr-policy", 'lr_policy: "fixed"', ""),
        ("lr-policy", '"fixed"', '"step" gamma: 0.1'),
        ("lr-policy", '"fixed"', '"poly"'),
        ("base-lr", "0.1", "0"),
        ("max-iter", "max_iter: 10", ""),
        ("steps", '"fixed"', '"multistep" gamma: 0.1 stepvalue: 5 stepvalue: 5'),
        ("steps", '"fixed"', '"multistep" gamma: 0.1 stepvalue: 20'),
        ("steps", '"fixed"', '"fixed" stepvalue: 5'),
        ("test-interval", "max_iter", "test_iter: 1 max_iter"),
        ("test-interval", "max_iter", "test_interval: 1 max_iter"),
        ("test-nets", "max_iter", 'test_net: "net.prototxt" max_iter'),
        ("test-nets", "max_iter", "test_iter: 1 test_interval: 1 test_state {} test_state {} max_iter"),
        ("solver-type", "max_iter", 'type: "sgd" max_iter'),
        ("solver-type", "max_iter", 'type: "SGD" solver_type: SGD max_iter'),
        ("momentum", "max_iter", 'type: "AdaGrad" max_iter'),
        ("rms-decay", "momentum: 0.9", 'type: "RMSProp" rms_decay: 1.5'),
        ("regularization", "max_iter", 'regularization_type: "L3" max_iter'),
        ("count", "max_iter", "iter_size: 0 max_iter"),
        ("unknown-field", "max_iter", "max_itr: 1 max_iter"),
        ("home-folder", "max_iter", 'snapshot_prefix: "~/x" max_iter'),
        ("bad-value", "max_iter", "solver_mode: TPU max_iter"),
        ("missing-file", "net.prototxt", "none.prototxt"),
        ("missing-file", "max_iter", 'weights: "a.caffemodel" max_iter'),
        ("missing-folder", "max_iter", 'snapshot: 5 snapshot_prefix: "nowhere/x" max_iter'),
    ],
)
def test_solver_rule(tmp_path: Path, code: str, old: str, new: str) -> None:
    assert solver_problems(tmp_path, SOLVER) == []
    assert old in SOLVER
    assert code in {one.code for one in solver_problems(tmp_path, SOLVER.replace(old, new, 1))}


def test_a_solver_s_nets_are_checked_and_named(tmp_path: Path) -> None:
    found = solver_problems(tmp_path, SOLVER, SOUND + layer("ReLU", "r", "none", "r"))
    (dangling,) = [one for one in found if one.code == "dangling-bottom"]
    assert dangling.source == str(tmp_path / "net.prototxt")
    assert [one.code for one in solver_problems(tmp_path, SOLVER, "layer {")] == ["not-readable"]


def test_test_states_choose_their_layers(tmp_path: Path) -> None:
    """Two test nets, each with a data layer of its own stage, as in BVLC's autoencoder."""
    rules = ("phase: TRAIN", 'phase: TEST stage: "a"', 'phase: TEST stage: "b"')
    own = "dummy_data_param { shape { dim: 4 dim: 9 } }"
    net = "".join(layer("DummyData", "d", "", "data", f"include {{ {rule} }} {own}") for rule in rules)
    text = SOLVER + 'test_iter: 1 test_iter: 1 test_interval: 1 test_state { stage: "a" } test_state { stage: "b" }'
    assert "dangling-bottom" not in {one.code for one in solver_problems(tmp_path, text, net + RELU)}
    missing = text.replace('stage: "b"', 'stage: "c"')
    found = [one for one in solver_problems(tmp_path, missing, net + RELU) if one.code == "dangling-bottom"]
    assert [one.phase for one in found] == ["TEST stage c"]
