"""The pycaffe backend refuses nets with learned layers below a layer whose backward pass is empty in Caffe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from prototxt_gen import layers
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.solver import read_solver
from prototxt_gen.train.backend import Settings, create
from prototxt_gen.train.missing_backward import TYPES_WITHOUT_BACKWARD, layers_to_check, one_layer_net
from prototxt_gen.train.pycaffe_process import TrainingSession
from tests import golden
from tests.support.caffe_support import caffe_or_skip

pytestmark = pytest.mark.caffe

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 4 dim: 3 dim: 3 } shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" CONV
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "it" type: "TYPE" bottom: "conv" top: "TOP" IT }
layer { name: "ip" type: "InnerProduct" bottom: "TOP" top: "ip" IP
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" }
"""
PARAMS = {
    "HardSigmoid": "",
    "HardSwish": "",
    "Pad": "pad_param { pad_u: 1 pad_d: 1 }",
    "PixelShuffle": "pixelshuffle_param { upscale_factor: 2 }",
    "Unsqueeze": "unsqueeze_param { dim: 1 }",
    "Upsample": "upsample_param { scale: 2 }",
}
STILL = "param { lr_mult: 0 } param { lr_mult: 0 }"


@pytest.fixture(scope="module", autouse=True)
def caffe_there() -> None:
    caffe_or_skip()


def begin(folder: Path, type_: str, conv: str = "", top: str = "it", more: str = "", ip: str = "") -> None:
    """Create the backend for a net with a layer of this type between a learned layer and the loss."""
    made = {"TYPE": type_, "TOP": top, "CONV": conv, "IT": f"{PARAMS.get(type_, '')} {more}", "IP": ip}
    text = NET
    for word, meaning in made.items():
        text = text.replace(word, meaning)
    (folder / "net.prototxt").write_text(text)
    solver = folder / "solver.prototxt"
    solver.write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1')
    create("pycaffe", read_solver(solver), Settings(workers=0, seed=3)).close()


@pytest.mark.parametrize("type_", PARAMS)
def test_learned_layer_below_an_empty_backward_pass_is_refused(type_: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=rf"layer 'it' \({type_}\): this Caffe has no backward pass") as told:
        begin(tmp_path, type_)
    assert str(told.value).endswith("--backend torch trains it") == (layers.find_layer_type(type_) is not None)


def test_in_place_layer_with_an_empty_backward_pass_is_refused(tmp_path: Path) -> None:
    """In place, bottom and top share their gradient in memory, so the layer below would learn a wrong gradient."""
    with pytest.raises(UnsupportedError, match="no backward pass"):
        begin(tmp_path, "HardSwish", top="conv")


@pytest.mark.parametrize(("conv", "more"), [(STILL, ""), ("", "propagate_down: false")])
def test_empty_backward_pass_is_accepted_if_no_gradient_is_needed(conv: str, more: str, tmp_path: Path) -> None:
    begin(tmp_path, "Upsample", conv, more=more)


def test_only_layers_between_learned_blobs_and_a_loss_are_checked() -> None:
    text = (
        NET.replace("TYPE", "Upsample").replace("TOP", "it").replace("CONV", "").replace(" IT ", "").replace(" IP", "")
    )
    blobs = {"conv": [(4, 4, 1, 1), (4,)], "ip": [(3, 16), (3,)]}
    net = parse_net(text).at("TRAIN")
    assert [layer.name for layer in layers_to_check(net, blobs)] == ["it"]
    assert not [*layers_to_check(net, {"ip": blobs["ip"]})]
    aside = replace(net, layers=net.layers[:3])
    assert not [*layers_to_check(aside, blobs)]


def probed() -> Iterator[tuple[LayerType, Example]]:
    """Yield up to three examples of each type that this Caffe has and whose gradients can be checked."""
    for type_, layer_type in layers.all_layer_types().items():
        if golden.path(layer_type).exists() and not layer_type.loss and type_ != "Parameter":
            for example in [
                one for one in layer_type.examples if one.gradients is True or type_ in TYPES_WITHOUT_BACKWARD
            ][:3]:
                yield layer_type, example


@pytest.mark.parametrize(("layer_type", "example"), [*probed()], ids=lambda one: getattr(one, "type", None) or one.name)
def test_types_without_backward_match_the_caffe_we_build(
    layer_type: LayerType, example: Example, tmp_path: Path
) -> None:
    """Examples with recorded gradients have a backward pass; those of TYPES_WITHOUT_BACKWARD have none."""
    import caffe

    session = object.__new__(TrainingSession)
    session.caffe = caffe
    file = tmp_path / "alone.prototxt"
    file.write_text(one_layer_net(golden.layer_of(layer_type, example), example.bottoms))
    assert session.has_backward({"net": str(file)}) == (layer_type.type not in TYPES_WITHOUT_BACKWARD)
