"""Reading of prototxts: V0, V1 and V2 layers, all ways to declare inputs, phases; compared with real Caffe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import NetError, PrototxtError
from prototxt_gen.ir import Net
from prototxt_gen.layers.data.data import DataParameter
from prototxt_gen.layers.vision.convolution import ConvolutionParameter
from prototxt_gen.layers.vision.pooling import PoolingParameter
from prototxt_gen.net.prototxt_reader import parse_net, read_net
from prototxt_gen.net.render import net_text
from prototxt_gen.schema.caffe_proto import ParamSpec, TransformationParameter
from tests.support.caffe_support import caffe_or_skip, make_net

V0 = """
name: "old"
input: "data" input_dim: 2 input_dim: 4 input_dim: 11 input_dim: 9
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "padded" }
layers { layer { name: "conv1" type: "conv" num_output: 6 kernelsize: 3 stride: 2 group: 2 biasterm: false
                 weight_filler { type: "gaussian" std: 0.01 } blobs_lr: 1. weight_decay: 0.5 }
         bottom: "padded" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.5 beta: 0.75 } bottom: "conv1" top: "norm1" }
layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 pad: 1 } bottom: "norm1" top: "pool1" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.25 } bottom: "pool1" top: "pool1" }
layers { layer { name: "flat" type: "flatten" } bottom: "pool1" top: "flat" }
layers { layer { name: "ip" type: "innerproduct" num_output: 5 bias_filler { type: "constant" value: 3 }
                 blobs_lr: 1. blobs_lr: 2. weight_decay: 1. weight_decay: 0. } bottom: "flat" top: "ip" }
layers { layer { name: "join" type: "concat" concat_dim: 1 } bottom: "ip" bottom: "flat" top: "join" }
layers { layer { name: "prob" type: "softmax" } bottom: "join" top: "prob" }
"""
V1 = """
name: "middle"
input: "data" input_shape { dim: 2 dim: 3 dim: 8 dim: 8 }
input: "other" input_shape { dim: 2 dim: 3 dim: 8 dim: 8 }
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
         param: "shared_w" param: "shared_b" convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layers { name: "conv2" type: CONVOLUTION bottom: "other" top: "conv2" param: "shared_w" param: "shared_b"
         blob_share_mode: STRICT blob_share_mode: PERMISSIVE convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layers { name: "sum" type: ELTWISE bottom: "conv1" bottom: "conv2" top: "sum" eltwise_param { operation: SUM } }
layers { name: "slice" type: SLICE bottom: "sum" top: "a" top: "b" slice_param { slice_dim: 1 } }
layers { name: "tanh" type: TANH bottom: "a" top: "a" }
layers { name: "power" type: POWER bottom: "b" top: "b" power_param { power: 2 scale: 0.5 } }
layers { name: "loss" type: EUCLIDEAN_LOSS bottom: "a" bottom: "b" top: "loss" loss_weight: 0.5
         include { phase: TRAIN } }
layers { name: "silent" type: SILENCE bottom: "a" bottom: "b" include { phase: TEST } }
"""
V2 = """
name: "new"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" exclude { phase: TEST stage: "none" }
        convolution_param { num_output: 2 kernel_h: 3 kernel_w: 1 } }
layer { name: "train" type: "ReLU" bottom: "conv" top: "conv" include { phase: TRAIN } }
layer { name: "test" type: "TanH" bottom: "conv" top: "conv" include { phase: TEST } }
"""


def layer_types(net: Net) -> list[tuple[str, str]]:
    return [(layer.name, layer.type) for layer in net.layers]


def test_v0_becomes_v2() -> None:
    net = parse_net(V0)
    assert layer_types(net) == [
        ("conv1", "Convolution"),
        ("relu1", "ReLU"),
        ("norm1", "LRN"),
        ("pool1", "Pooling"),
        ("drop", "Dropout"),
        ("flat", "Flatten"),
        ("ip", "InnerProduct"),
        ("join", "Concat"),
        ("prob", "Softmax"),
    ]
    conv = net.layer("conv1").get(ConvolutionParameter)
    assert (conv.pad, conv.kernel_size, conv.stride, conv.group, conv.bias_term) == ((2,), (3,), (2,), 2, False)
    assert (conv.weight_filler.type, conv.weight_filler.std) == ("gaussian", 0.01)
    assert [value.blob for value in net.layer("conv1").bottoms] == ["data"]
    assert net.layer("conv1").params.param == (ParamSpec(lr_mult=1, decay_mult=0.5),)
    assert net.layer("ip").params.param == (ParamSpec(lr_mult=1, decay_mult=1), ParamSpec(lr_mult=2, decay_mult=0))
    pool = net.layer("pool1").get(PoolingParameter)
    assert (pool.pool, pool.kernel_size, pool.stride, pool.pad) == ("AVE", 3, 2, 1)
    assert [extra for layer in net.layers for extra in layer.params.walk_extras()] == []
    assert analyse(net).complete


def test_v1_becomes_v2() -> None:
    net = parse_net(V1)
    assert [layer.type for layer in net.layers] == [
        *("Convolution", "Convolution", "Eltwise", "Slice", "TanH", "Power", "EuclideanLoss", "Silence"),
    ]
    first, second = net.layers[0].params.param, net.layers[1].params.param
    assert first == (ParamSpec(name="shared_w", lr_mult=1, decay_mult=1), ParamSpec(name="shared_b", lr_mult=2))
    assert [spec.share_mode for spec in second] == ["STRICT", "PERMISSIVE"]
    assert analyse(net.at("TRAIN")).parameters == 4 * 3 * 9 + 4
    assert net.layer("loss").params.loss_weight == (0.5,)


def test_transformations_of_v1_data_layers_move() -> None:
    """What the data layer's own parameters say takes the place of what transform_param says, as in Caffe."""
    text = """layers { name: "data" type: DATA top: "data" transform_param { scale: 2 mirror: false }
      data_param { source: "db" batch_size: 4 backend: LMDB scale: 0.5 mean_file: "mean" crop_size: 6 mirror: true } }
    """
    layer = parse_net(text).layers[0]
    moved = TransformationParameter(scale=0.5, mean_file="mean", crop_size=6, mirror=True)
    assert layer.get(TransformationParameter) == moved
    assert layer.get(DataParameter) == DataParameter(source="db", batch_size=4, backend="LMDB")
    assert not layer.params.extras


def test_transformations_of_v2_data_layers_stay() -> None:
    """Caffe never looks at them there; to move them would train another net than Caffe does."""
    text = 'layer { name: "data" type: "Data" top: "data" data_param { source: "db" batch_size: 4 scale: 0.5 } }'
    layer = parse_net(text).layers[0]
    assert layer.get(TransformationParameter) == TransformationParameter()
    assert layer.get(DataParameter).scale == 0.5


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SOFTMAX_LOSS", "SoftmaxWithLoss"),
        ("INNER_PRODUCT", "InnerProduct"),
        ("HDF5_OUTPUT", "HDF5Output"),
        ("IM2COL", "Im2col"),
        ("ABSVAL", "AbsVal"),
        ("SIGMOID_CROSS_ENTROPY_LOSS", "SigmoidCrossEntropyLoss"),
        ("MULTINOMIAL_LOGISTIC_LOSS", "MultinomialLogisticLoss"),
        ("MVN", "MVN"),
        ("BNLL", "BNLL"),
        ("ARGMAX", "ArgMax"),
        ("WINDOW_DATA", "WindowData"),
        ("NEVER_HEARD_OF", "NEVER_HEARD_OF"),
    ],
)
def test_old_type_names_are_converted(old: str, new: str) -> None:
    assert parse_net(f'layers {{ name: "x" type: {old} }}').layers[0].type == new


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (('bottom: "padded" top: "conv1"', 'bottom: "padded" bottom: "data" top: "conv1"'), "with one bottom can read"),
        (('type: "conv"', 'type: "relu"'), "only a conv or pool layer"),
        (('top: "padded"', 'top: "padded" top: "more"'), "a padding layer must have one bottom and one top"),
        (('bottom: "data" top: "padded"', 'top: "padded"'), "a padding layer must have one bottom and one top"),
        (("layers { layer { name: \"conv1\"", 'layers { layer { type: "padding" } bottom: "padded" top: "p2" }\n'
          "layers { layer { name: \"conv1\""), "only a conv or pool layer"),
    ],
)  # fmt: skip
def test_padding_layers_that_caffe_refuses_are_errors(damage: tuple[str, str], error: str) -> None:
    assert damage[0] in V0
    with pytest.raises(PrototxtError, match=rf"line \d+: .*{error}"):
        parse_net(V0.replace(*damage, 1))


def test_a_blob_that_another_layer_overwrites_has_no_padding() -> None:
    over = 'layers { layer { name: "r" type: "relu" } bottom: "data" top: "padded" }\n'
    changed = V0.replace('layers { layer { name: "conv1"', over + 'layers { layer { name: "conv1"')
    conv = parse_net(changed).layer("conv1")
    assert conv.bottoms[0].blob == "padded"
    assert conv.get(ConvolutionParameter).pad == ()


INPUTS = [
    'input: "a" input: "b" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 input_dim: [5, 6, 7, 8]',
    'input: "a" input_shape { dim: 1 dim: 2 dim: 3 dim: 4 } input: "b" input_shape { dim: [5, 6, 7, 8] } input_dim: 9',
    'layer { name: "in" type: "Input" top: "a" top: "b" '
    "input_param { shape { dim: [1, 2, 3, 4] } shape { dim: [5, 6, 7, 8] } } }",
]


@pytest.mark.parametrize("text", INPUTS, ids=["input_dim", "input_shape", "Input"])
def test_three_ways_to_declare_inputs(text: str) -> None:
    shapes = {value.blob: shape for value, shape in analyse(parse_net(text)).shapes.items()}
    assert shapes == {"a": (1, 2, 3, 4), "b": (5, 6, 7, 8)}


def test_one_shape_of_an_input_layer_is_used_for_all_its_tops() -> None:
    text = 'layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 3 } } }'
    assert set(analyse(parse_net(text)).shapes.values()) == {(3,)}


def test_inputs_may_have_no_shapes() -> None:
    net = parse_net('input: "data" layer { name: "r" type: "ReLU" bottom: "data" top: "r" }')
    assert net.inputs[0].shape is None
    assert not analyse(net).complete
    assert analyse(net, {"data": (1, 2)}).complete


def test_input_dim_without_an_input_is_ignored() -> None:
    assert parse_net("input_dim: 1 input_dim: 2").inputs == ()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('input: "a" input_dim: 1 input_dim: 2', "line 1: 2 input_dim, but each input needs 4"),
        ('input: "a"\ninput: "b"\ninput_shape { dim: 1 }', "line 3: 2 inputs, but 1 shapes"),
        ('input: "a" input: "a"', "input 'a' is declared twice"),
        ('input: "a" input_shape { dim: 1 dim: -2 }', "a size cannot be negative: -2"),
        ('input: "a" input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 2.5', "input_dim must be a whole number"),
        ('input: "a" input_shape { dim: "x" }', "expected int64"),
        ("input: a", "input must be a string in quotes"),
        ('layer { name: "x" type: "ReLU" bottom: 3 }', "bottom must be a string in quotes"),
        ('layer: "x"', "layer must be a message in braces"),
        ("name {}", "name must be a string in quotes"),
    ],
)
def test_files_that_are_not_nets_are_errors(text: str, error: str) -> None:
    with pytest.raises(PrototxtError, match=error):
        parse_net(text)


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text('name: "n"\nlayer {\n')
    with pytest.raises(PrototxtError, match=r"net\.prototxt: line 2|net\.prototxt: the file ends") as caught:
        read_net(file)
    assert caught.value.line == 2
    with pytest.raises(PrototxtError, match=r"missing\.prototxt: No such file"):
        read_net(tmp_path / "missing.prototxt")


def test_in_place_tops_are_new_values_and_are_written_in_place() -> None:
    net = parse_net(V0)
    relu, norm = net.layer("relu1"), net.layer("norm1")
    assert relu.bottoms != relu.tops
    assert relu.bottoms[0].blob == relu.tops[0].blob
    assert norm.bottoms == relu.tops
    assert net_text(net).count('top: "conv1"') == 2


RULES = [
    ("", {"TRAIN": True, "TEST": True}),
    ("include { phase: TRAIN }", {"TRAIN": True, "TEST": False}),
    ("exclude { phase: TRAIN }", {"TRAIN": False, "TEST": True}),
    ("include { phase: TRAIN } include { phase: TEST }", {"TRAIN": True, "TEST": True}),
    ("include { phase: TEST stage: 'a' stage: 'b' }", {"TEST": False, "TEST a": False, "TEST a b": True}),
    ("include { phase: TEST stage: 'a' }", {"TEST a": True, "TEST a b": True, "TRAIN a": False}),
    ("include { not_stage: 'a' }", {"TEST": True, "TEST a": False, "TEST b": True}),
    ("include { min_level: 2 }", {"TEST": False, "TEST 2": True, "TEST 3": True}),
    ("include { max_level: -1 }", {"TEST": False, "TEST -1": True, "TEST 1": False}),
    ("exclude { min_level: 1 max_level: 2 }", {"TEST": True, "TEST 1": False, "TEST 2": False, "TEST 3": True}),
    ("include { min_level: 5 } include { stage: 'a' }", {"TEST": False, "TEST a": True, "TEST 5": True}),
    ("include { }", {"TRAIN": True, "TEST": True}),
    ("exclude { }", {"TRAIN": False, "TEST": False}),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "states"), RULES, ids=[rules or "none" for rules, _ in RULES])
def test_include_and_exclude_rules(rules: str, states: dict[str, bool]) -> None:
    net = parse_net(f'layer {{ name: "x" type: "Silence" {rules} }}')
    for state, stays in states.items():
        assert bool(net.at(*state_of(state)).layers) is stays, state


def state_of(words: str) -> tuple[str, list[str], int]:
    """Return phase, stages and level of `TEST a b 2`."""
    phase, *rest = words.split()
    level = next((int(word) for word in rest if word.lstrip("-").isdigit()), 0)
    return phase, [word for word in rest if word.isalpha()], level


@pytest.mark.caffe
@pytest.mark.parametrize(("rules", "states"), RULES, ids=[rules or "none" for rules, _ in RULES])
def test_include_and_exclude_rules_as_in_caffe(rules: str, states: dict[str, bool], tmp_path: Path) -> None:
    caffe = caffe_or_skip()
    shape = "input_param { shape { dim: 1 } }"
    file = tmp_path / "net.prototxt"
    file.write_text(f'layer {{ name: "x" type: "Input" top: "x" {shape} {rules} }}')
    for state, stays in states.items():
        phase, stages, level = state_of(state)
        net = caffe.Net(str(file), getattr(caffe, phase), level=level, stages=stages)
        assert list(net._layer_names) == ["x"] * stays, state


def test_include_and_exclude_in_one_layer_are_an_error() -> None:
    net = parse_net('layer { name: "x" type: "ReLU" include { phase: TRAIN } exclude { phase: TEST } }')
    with pytest.raises(NetError, match=r"layer 'x' \(ReLU\): it has both include and exclude"):
        net.at("TRAIN")


@pytest.mark.caffe
@pytest.mark.parametrize("train", [False, True], ids=["TEST", "TRAIN"])
@pytest.mark.parametrize("text", [V0, V1, V2, *INPUTS], ids=["V0", "V1", "V2", "input_dim", "input_shape", "Input"])
def test_caffe_makes_the_same_net_of_the_old_and_the_upgraded_text(text: str, train: bool, tmp_path: Path) -> None:
    old = make_net(tmp_path, text, train)
    ours = make_net(tmp_path, net_text(parse_net(text)), train)
    assert facts(old) == facts(ours)
    mine = parse_net(text).at("TRAIN" if train else "TEST")
    shapes = {value.blob: shape for value, shape in analyse(mine).shapes.items()}
    assert {name: shape for name, shape in facts(old)[1].items() if name in shapes} == shapes


def facts(net: Any) -> tuple[Any, ...]:
    """Return what Caffe made: layers, blobs with shapes, parameters with shapes, what goes in and out."""
    layers = [(name, layer.type) for name, layer in zip(net._layer_names, net.layers, strict=True)]
    blobs = {name: tuple(blob.data.shape) for name, blob in net.blobs.items()}
    learned = {name: [tuple(blob.data.shape) for blob in many] for name, many in net.params.items()}
    return layers, blobs, learned, list(net.inputs), list(net.outputs)
