"""The model zoo: compared with the authors' published nets; variants; train_val and solver."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen import Builder, Net, Value, analyse, build, model, net_text, parse_net
from prototxt_gen.blocks import BlockBuilder, BlockStyle, pre_activation
from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Layer, show
from prototxt_gen.layers.common.inner_product import InnerProductParameter
from prototxt_gen.layers.utility.eltwise import EltwiseParameter
from prototxt_gen.layers.vision.convolution import ConvolutionParameter
from prototxt_gen.layers.vision.pooling import PoolingParameter
from prototxt_gen.models import GENERATED, ZOO

HERE = Path(__file__).parents[1]
GENERATED_FOLDER = HERE.parent / "generated"
# name: layers, parameters, MACs at 224, as measured on the authors' files
FACTS = {
    "attention-56": (385, 31_810_728, 6_270_836_736),
    "attention-92": (631, 52_466_344, 10_533_789_696),
    "attentionnext-56": (381, 31_318_824, 6_419_106_816),
    "attentionnext-92": (621, 52_102_952, 10_704_337_920),
}


def described(layer: Layer) -> str:
    """The layer's parameters as the published tables write them."""
    if layer.type == "Convolution":
        c = layer.get(ConvolutionParameter)
        (k,), (s,) = c.kernel_size, c.stride
        return f"k{k} s{s} p{sum(c.pad)} g{c.group} bias{int(c.bias_term)} out{c.num_output}"
    if layer.type == "Pooling":
        p = layer.get(PoolingParameter)
        return f"{p.pool} k{p.kernel_size} s{p.stride} p{p.pad}"
    if layer.type == "Eltwise":
        return layer.get(EltwiseParameter).operation
    return "frozen" if layer.type == "BN" else ""


@pytest.mark.parametrize("name", ["attention-56", "attentionnext-56"])
def test_deploy_equals_the_published_table(name: str) -> None:
    with (HERE / "published" / f"{name}.tsv").open() as file:
        published = [tuple(row.values()) for row in csv.DictReader(file, delimiter="\t")]
    ours = []
    for row in analyse(build(name)).rows:
        layer = row.layer
        bottoms, tops = (" ".join(v.blob for v in values) for values in (layer.bottoms, layer.tops))
        ours.append((layer.name, layer.type, bottoms, tops, described(layer), show((row.tops[0] or ())[1:])))
    assert ours == published


@pytest.mark.parametrize(("name", "facts"), FACTS.items())
def test_counts_equal_the_facts(name: str, facts: tuple[int, int, int]) -> None:
    analysis = analyse(build(name))
    assert (len(analysis.rows), analysis.parameters, analysis.macs) == facts


def test_errors_of_the_published_files_are_not_repeated() -> None:
    assert build("attentionnext-56").name == "AttentionNeXt-56"
    net = build("attentionnext-92")
    assert net.layer("classifier").bottoms[0].blob == "ave_pool"
    assert not [v for layer in net.layers for v in layer.bottoms if v.version < 0]


@pytest.mark.parametrize("name", ZOO)
def test_emitted_texts_read_back_as_the_nets(name: str) -> None:
    made = model(name)
    texts = made.texts()
    assert parse_net(texts["deploy.prototxt"]) == made.deploy
    assert parse_net(texts["train_val.prototxt"]) == made.train_val


@pytest.mark.parametrize("name", GENERATED)
def test_generated_files_are_these_byte_for_byte(name: str) -> None:
    for file, text in model(name).texts().items():
        assert (GENERATED_FOLDER / name / file).read_text() == text, "run: make generated"


@pytest.mark.parametrize(("name", "size", "kernel"), [("attention-56", 320, 10), ("attentionnext-92", 320, 10)])
def test_the_heads_pooling_follows_the_input_size(name: str, size: int, kernel: int) -> None:
    pool = build(name, input_size=size).layer("ave_pool")
    assert pool.get(PoolingParameter).kernel_size == kernel
    assert pool.tops[0].known_shape[2:] == (1, 1)


@pytest.mark.parametrize("modules", [(1, 1, 1), (2, 2, 2)])
def test_depths_follow_the_rule_of_the_paper(modules: tuple[int, int, int]) -> None:
    """The trunk's weighted layers are 36m + 20: three per unit off the masks, the stem and the classifier."""
    net = build("attention-56", modules=modules)
    names = [layer.name for layer in net.layers if layer.type in ("Convolution", "InnerProduct")]
    trunk = [name for name in names if "/mask/" not in name and "branch2" not in name]
    modules_before = sum(modules)
    # each module: p + t + p units of three convolutions; the rule counts m modules in each of three stages
    assert len(trunk) == 12 * modules_before + 20


def test_cifar_nets_are_near_the_papers_sizes() -> None:
    remembered = {"attention-92-cifar": 1.9e6, "attention-236-cifar": 5.1e6, "attention-452-cifar": 8.6e6}
    for name, parameters in remembered.items():
        assert analyse(build(name)).parameters == pytest.approx(parameters, rel=0.12)


def test_resnet_and_resnext_are_built_from_the_same_blocks() -> None:
    """25.6 M and 25.0 M parameters, 4.1 G MACs and 4.2 G: the known sizes of the two (stride on the 3×3)."""
    resnet, resnext = analyse(build("resnet-50")), analyse(build("resnext-50"))
    assert (resnet.parameters, resnext.parameters) == (25_557_032, 25_028_904)
    assert resnet.macs == pytest.approx(4.1e9, rel=0.02)


VARIANTS = [
    {"attention": "naive"},
    {"mask_activation": "channel"},
    {"mask_activation": "spatial"},
    {"mask": "local-convolution"},
    {"bn": "batchnorm-scale"},
    {"bn": "frozen"},
    {"upsampling": "deconvolution"},
    {"ptr": (2, 1, 2)},
    {"modules": (2, 0, 1)},
    {"unit": "resnet"},
    {"unit": "resnext", "cardinality": 8},
    {"width": 16, "classes": 10, "channels": 1},
    {"input_size": 111},
    {"input_size": 97, "upsampling": "deconvolution"},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_variants_build_and_train(changes: dict[str, Any]) -> None:
    made = model("attention-56", **changes)
    assert analyse(made.deploy).complete
    given = {"data": (2, *made.deploy.inputs[0].known_shape[1:]), "label": (2,)}
    for phase in ("TRAIN", "TEST"):
        rows = analyse(made.train_val.at(phase), given).rows
        assert [str(row.error) for row in rows if row.error] == []
    assert parse_net(made.texts()["train_val.prototxt"]) == made.train_val


def test_bvlc_caffe_runs_the_variant_without_fork_layers() -> None:
    net = build("attention-56", bn="batchnorm-scale", upsampling="deconvolution")
    assert not {layer.type for layer in net.layers} & {"BN", "Interp"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clases": 10}, "did you mean 'classes'"),
        ({"unit": "resnet50"}, "did you mean 'resnet'"),
        ({"width": 0}, "at least 1"),
        ({"modules": (1, 1, 1, 1, 1)}, "more entries than the net has stages, 4"),
        ({"unit": "resnext", "width": 16, "cardinality": 7}, "group 7 does not divide"),
        ({"input_size": 16}, "layer 'AttentionA_1/mask/down_sample/pool3_3x3_s2' .* larger than the padded bottom"),
    ],
)
def test_wrong_options_are_errors(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(NetError, match=words):
        build("attention-56", **changes)


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(NetError, match="did you mean 'attention-56'"):
        build("atention-56")


def train_layers(net: Net, type_: str) -> list[Layer]:
    return [layer for layer in net.at("TRAIN").layers if layer.type == type_]


def test_train_val_has_all_that_training_needs() -> None:
    net = model("attention-56").train_val
    for layer in train_layers(net, "BN"):
        multipliers = [(spec.lr_mult, spec.decay_mult) for spec in layer.params.param]
        assert multipliers == [(1, 1), (1, 1), (0, 0), (0, 0)]
        text = {field.name for own in [layer.params.to_text()] for field in own}
        assert text == {"bn_param", "param"}
    for layer in train_layers(net, "Convolution"):
        assert layer.get(ConvolutionParameter).weight_filler.type == "msra"
    assert layer_has_filler(net)
    data = net.at("TRAIN").layers[0]
    assert data.type == "Data"
    assert [layer.name for layer in net.at("TEST").layers if layer.type == "Accuracy"] == [
        "accuracy/top-1",
        "accuracy/top-5",
    ]
    assert not train_layers(net, "Accuracy")
    assert not train_layers(net, "Softmax")


def layer_has_filler(net: Net) -> bool:
    return net.layer("classifier").get(InnerProductParameter).has("weight_filler")


@pytest.mark.parametrize("kind", ["lmdb", "hdf5", "image-list", "python", "input"])
def test_data_layers(kind: str) -> None:
    net = model("attention-56-cifar", kind=kind, train="a", test="b").train_val
    for phase in ("TRAIN", "TEST"):
        first = net.at(phase).layers[0]
        assert [top.blob for top in first.tops] == ["data", "label"]


def test_solver_is_that_of_the_paper_and_can_be_changed() -> None:
    paper = model("attention-56").solver
    assert (paper.type, paper.base_lr, paper.momentum) == ("Nesterov", 0.1, 0.9)
    assert paper.weight_decay == 1e-4
    assert paper.stepvalue == (200_000, 400_000, 500_000)
    assert paper.max_iter == 530_000
    cifar = model("attention-92-cifar").solver
    assert (cifar.stepvalue, cifar.max_iter) == ((64_000, 96_000), 160_000)
    assert model("attention-56", solver={"base_lr": 0.01}).solver.base_lr == 0.01
    with pytest.raises(NetError, match="did you mean 'base_lr'"):
        _ = model("attention-56", solver={"base_rl": 0.01}).solver


def squeeze_excite(b: Builder, x: Value, name: str, ratio: int = 16) -> Value:
    """A researcher's own block, as the README shows it."""
    with b.scope(name):
        y = b.add("Pooling", "pool", x, pool="AVE", global_pooling=True)
        y = b.add("Convolution", "down", y, num_output=x.channels // ratio, kernel_size=1)
        y = b.add("ReLU", "relu", y, in_place=True)
        y = b.add("Convolution", "up", y, num_output=x.channels, kernel_size=1)
        y = b.add("Sigmoid", "gate", y, in_place=True)
        y = b.add("Flatten", "flat", y, axis=1)
        return b.add("Scale", "scaled", x, y, axis=0)


def test_a_users_own_block() -> None:
    b = Builder("se")
    x = b.input("data", (1, 64, 8, 8))
    y = pre_activation(BlockBuilder(b, BlockStyle()), "res1", squeeze_excite(b, x, "se1"), 64, 1)
    assert y.known_shape == (1, 64, 8, 8)
    assert analyse(b.build()).complete


def test_the_order_of_written_fields_does_not_depend_on_earlier_nets() -> None:
    """Equal parameters in another order, read from a file, must not lend their text to this net."""
    text = 'layer { name: "c" type: "Convolution" bottom: "b" top: "c" convolution_param { %s } }'
    for inside in ("num_output: 7 kernel_size: 3", "kernel_size: 3 num_output: 7"):
        written = net_text(parse_net(text % inside))
        places = [written.index(field.split(":")[0]) for field in inside.split(" ")[::2]]
        assert places == sorted(places)


def test_another_lr_policy_removes_the_fields_of_the_old_one() -> None:
    made = model("attention-56-cifar", solver={"lr_policy": "poly", "power": 1.0}).solver
    assert (made.lr_policy, made.power) == ("poly", 1.0)
    assert not made.has("gamma") and not made.stepvalue
    kept = model("attention-56-cifar", solver={"base_lr": 0.05}).solver
    assert kept.stepvalue == (64_000, 96_000)
