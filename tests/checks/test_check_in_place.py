"""`check` warns of gradients that are wrong in Caffe: overwritten tops, pooling windows outside the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen.checks import NetMode, check_net
from prototxt_gen.net.prototxt_reader import parse_net
from tests.support.caffe_support import caffe_or_skip

NET = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 4 dim: 4 dim: 3 dim: 3 } shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" SPEC
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "it" type: "TYPE" bottom: "conv" top: "it" PARAMS }
layer { name: "flat" type: "Flatten" bottom: "it" top: "flat" }
layer { name: "over" type: OVER bottom: "flat" top: "ABOVE" }
layer { name: "ip" type: "InnerProduct" bottom: "ABOVE" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
HALF = '"Scale" scale_param { filler { value: 0.5 } }'
"""What writes over the top; in place it keeps what its own gradient needs."""
READERS = (
    "ELU", "Exp", "LRN", "MVN", "Normalize norm_param { scale_filler { value: 2 } }", "Sigmoid", "Softmax", "TanH",
    "Power power_param { power: 3 }", "Power power_param { power: 0.5 shift: 30 }",
)  # fmt: skip
OTHERS = (
    "AbsVal", "BN bn_param { slope_filler { value: 1 } }", "BNLL", "BatchNorm", "Bias",
    "Clip clip_param { min: -1 max: 1 }", "Interp interp_param { zoom_factor: 2 }", "Log log_param { shift: 30 }",
    "PReLU", "Permute", "ReLU", "Scale", "LRN lrn_param { norm_region: WITHIN_CHANNEL }",
    "MVN mvn_param { normalize_variance: false }", "Pooling pooling_param { global_pooling: true }",
    "Power power_param { power: 2 shift: 1 }", "Power", "Tile tile_param { tiles: 2 }",
)  # fmt: skip


def net(it: str, over: str = HALF, above: str = "flat", spec: str = "") -> str:
    """Return a net with this layer between what is learned and the loss, and another that writes over its memory."""
    type_, _, params = it.partition(" ")
    words = {"TYPE": type_, "PARAMS": params, "OVER": over, "ABOVE": above, "SPEC": spec}
    text = NET
    for word, meaning in words.items():
        text = text.replace(word, meaning)
    return text


def told(text: str, phase: str = "TRAIN") -> list[str]:
    return [str(one) for one in check_net(parse_net(text), modes=[NetMode(phase)]) if one.code == "lost-top"]


def gradient(folder: Path, text: str, weights: list[Any]) -> Any:
    """Return Caffe's gradients below the writer; the weights are kept in the list, or taken from it."""
    import caffe

    file = folder / "net.prototxt"
    file.write_text("force_backward: true " + text)
    made = caffe.Net(str(file), caffe.TRAIN)
    blobs = [blob for name in ("conv", "ip") for blob in made.params[name]]
    weights.extend(blob.data.copy() for blob in blobs[len(weights) :])
    for blob, kept in zip(blobs, weights, strict=True):
        blob.data[...] = kept
    rng = np.random.default_rng(0)
    made.blobs["data"].data[...] = rng.standard_normal((4, 4, 3, 3))
    made.blobs["label"].data[...] = rng.integers(0, 3, 4)
    made.forward()
    made.backward()
    return np.concatenate([blob.diff.ravel() for name in ("conv", "it") for blob in made.params.get(name, ())])


@pytest.mark.caffe
@pytest.mark.parametrize("it", READERS + OTHERS)
def test_the_rule_warns_exactly_where_the_gradient_of_caffe_is_wrong(it: str, tmp_path: Path) -> None:
    caffe_or_skip()
    weights: list[Any] = []
    sound = gradient(tmp_path, net(it, above="over"), weights)
    written_over = gradient(tmp_path, net(it), weights)
    wrong = np.abs(sound - written_over).max() > 1e-3 * np.abs(sound).max()
    assert wrong == bool(told(net(it))) == (it in READERS)
    assert not told(net(it, above="over"))


def test_the_message_names_both_layers() -> None:
    (one,) = told(net("Sigmoid"))
    assert "layer 'over' (Scale): it overwrites 'flat' in place, which layer 'it' (Sigmoid) in line 6 needs" in one


@pytest.mark.parametrize("text", [
    net("Sigmoid", '"ReLU"'),
    net("TanH", spec="param { lr_mult: 0 } param { lr_mult: 0 }"),
    net("TanH propagate_down: false"),
    net("Normalize param { lr_mult: 0 }"),
    net("TanH").replace('layer { name: "loss"', 'layer { include { phase: TEST } name: "loss"'),
], ids=["nothing changed", "nothing learned", "no gradient goes down", "no scale learned", "no loss"])  # fmt: skip
def test_no_warning_if_the_gradient_is_right(text: str) -> None:
    assert not told(text)


def test_no_warning_outside_of_training() -> None:
    assert told(net("TanH"))
    assert not told(net("TanH"), "TEST")


@pytest.mark.caffe
@pytest.mark.parametrize(("pool", "size", "beyond"), [
    ("MAX", 6, True), ("AVE", 6, True), ("MAX", 5, False), ("MAX", 7, False), ("AVE", 8, False),
])  # fmt: skip
def test_a_pooling_window_without_a_pixel_gives_a_warning(pool: str, size: int, beyond: bool, tmp_path: Path) -> None:
    """Two pixels, then one that is left out: of six, the third window would begin at the seventh."""
    caffe = caffe_or_skip()
    text = f"""input: "x" input_shape {{ dim: 1 dim: 1 dim: 4 dim: {size} }}
    layer {{ name: "p" type: "Pooling" bottom: "x" top: "p"
      pooling_param {{ pool: {pool} kernel_h: 2 stride_h: 2 kernel_w: 2 stride_w: 3 }} }}"""
    (tmp_path / "net.prototxt").write_text(text)
    made = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    made.forward()
    last = float(made.blobs["p"].data[0, 0, 0, -1])
    assert (np.isnan(last) or last < -1e38) == beyond
    (problems,) = [[str(p) for p in check_net(parse_net(text)) if p.code == "empty-window"]]
    assert bool(problems) == beyond
    if beyond:
        assert "its last windows lie outside its bottom 1x1x4x6" in problems[0]
