"""Anchors of Proposal layers: two rules of forks, and image info with one scale or two."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from converters import read_net_with_weights, to_torch, verify
from prototxt_gen import parse_net
from prototxt_gen.checks import check_net
from prototxt_gen.common.errors import NetError
from prototxt_gen.layers.detection.proposal import ProposalParameter, anchors

PARAMS = "feat_stride: 16 base_size: 16 min_size: 16 ratio: 0.5 ratio: 1 ratio: 2 scale: 8 scale: 16 scale: 32"
PY_FASTER_RCNN = [
    [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
    [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
    [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
]  # fmt: skip
"""The anchors in the comment at the head of lib/rpn/generate_anchors.py in rbgirshick/py-faster-rcnn, shifted by -1."""


def net(info: str, params: str = PARAMS, count: int = 9, size: str = "dim: 4 dim: 5") -> str:
    return f"""
input: "prob" input_shape {{ dim: 1 dim: {2 * count} {size} }}
input: "box" input_shape {{ dim: 1 dim: {4 * count} {size} }}
input: "info" input_shape {{ {info} }}
layer {{ name: "p" type: "Proposal" bottom: "prob" bottom: "box" bottom: "info" top: "rois" top: "scores"
  proposal_param {{ {params} }} }}
"""


FOUR, THREE = "dim: 1 dim: 4", "dim: 1 dim: 3"


def test_anchors_by_scale_are_those_of_faster_rcnn() -> None:
    p = parse_net(net(FOUR)).layers[0].get(ProposalParameter)
    np.testing.assert_array_equal(anchors(p, "SCALE"), PY_FASTER_RCNN)


def fork_anchors(p: ProposalParameter) -> list[list[float]]:
    """Return the anchors as generate_anchors of openvinotoolkit/training_toolbox_caffe computes them, one by one."""
    f, center, out = np.float32, np.float32(0.5) * (np.float32(p.base_size) - np.float32(1)), []
    for ratio in map(f, p.ratio):
        width = f(int(np.sqrt(f(p.base_size * p.base_size) / ratio) + f(0.5)))
        height = f(int(width * ratio + f(0.5)))
        for scale in map(f, p.scale):
            half_w, half_h = f(0.5) * (width * scale - f(1)), f(0.5) * (height * scale - f(1))
            out.append([center - half_w, center - half_h, center + half_w, center + half_h])
    return out


@pytest.mark.parametrize("base_size", [1, 3, 8, 16, 17])
def test_anchors_by_scale_are_those_of_the_fork(base_size: int) -> None:
    p = ProposalParameter(base_size=base_size, ratio=(0.333, 0.5, 0.667, 1, 1.5, 2), scale=(2.5, 3, 6.25, 25))
    np.testing.assert_array_equal(anchors(p, "SCALE"), fork_anchors(p))


def regions(text: str, info: list[float], anchor_rule: str | None = None) -> list[list[float]]:
    """Return the regions for deltas of zero, with scores that fall from one anchor to the next."""
    module = to_torch(parse_net(text), None, anchor_rule=anchor_rule)
    shapes = [value.known_shape for value in parse_net(text).inputs]
    scores = torch.linspace(1, 0.1, int(np.prod(shapes[0]))).reshape(shapes[0])
    rois, _ = module(scores, torch.zeros(shapes[1]), torch.tensor([info]))
    regions: list[list[float]] = rois.tolist()
    return regions


ONE = "feat_stride: 16 base_size: 16 min_size: 4 ratio: 1 scale: 2"


def test_rule_decides_the_size_of_the_region() -> None:
    text = net(FOUR, ONE, 1, "dim: 1 dim: 1")
    assert regions(text, [64, 80, 1, 1], anchor_rule="scale") == [[0, 0, 0, 24, 24]]
    small = regions(text.replace("scale: 2", "scale: 8"), [64, 80, 1, 1], anchor_rule="scale-over-base")
    assert small == [[0, 4, 4, 12, 12]]


def test_image_info_of_three_numbers_is_by_scale() -> None:
    model = read_net_with_weights(parse_net(net(THREE)), None)
    assert model.net.layers[0].get(ProposalParameter).anchor_rule == "SCALE"
    assert regions(net(THREE, ONE, 1, "dim: 1 dim: 1"), [64, 80, 1]) == [[0, 0, 0, 24, 24]]


def test_one_scale_counts_for_both_sides() -> None:
    """A region of 25×25 pixels has score 0 if min_size·scale is more, on either side."""
    text = net(THREE, ONE.replace("min_size: 4", "min_size: 20"), 1, "dim: 1 dim: 1")
    module = to_torch(parse_net(text), None)
    inputs = torch.tensor([[[[0.3]], [[0.7]]]]), torch.zeros(1, 4, 1, 1)
    for scale, score in ((1.0, 0.7), (1.3, 0.0)):
        assert module(*inputs, torch.tensor([[64.0, 80, scale]]))[1].tolist() == pytest.approx([score])


@pytest.mark.parametrize("info", [FOUR, THREE])
def test_onnx_computes_the_same_regions(info: str) -> None:
    shape, rng = (1, 4 if info == FOUR else 3), np.random.default_rng(0)
    inputs = {
        "prob": rng.uniform(0.05, 0.95, (1, 18, 4, 5)).astype("f4"),
        "box": (0.2 * rng.standard_normal((1, 36, 4, 5))).astype("f4"),
        "info": np.array([64, 80, 1, 1], "f4")[: shape[1]].reshape(shape),
    }
    text = net(info, PARAMS + " post_nms_topn: 20")
    report = verify(parse_net(text), None, inputs=inputs, anchor_rule="scale", against=("pycaffe", "torch", "onnx"))
    assert report.verified
    caffe = next(outcome for outcome in report.outcomes if outcome.runtime == "pycaffe")
    assert caffe.state != "ran", "the Caffe that we build divides by base_size"


def test_nothing_that_tells_the_rule_is_an_error() -> None:
    with pytest.raises(NetError, match=r"n.prototxt: layer 'p' \(Proposal\): .*--anchor-rule scale or --anchor-rule"):
        read_net_with_weights(parse_net(net(FOUR), "n.prototxt"), None)
    assert any("--anchor-rule" in str(problem) for problem in check_net(parse_net(net(FOUR))))


def test_rules_with_equal_anchors_need_no_option() -> None:
    text = net(FOUR, "base_size: 1 ratio: 1 scale: 32", 1)
    assert read_net_with_weights(parse_net(text), None).net.layers[0].get(ProposalParameter).has("anchor_rule") is False
