"""Python layers of public code that have a layer type, compared with results of that code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.common.net_with_weights import ReadOptions, read_net_with_weights
from converters.verification.runtimes import run_onnx_file
from converters.verification.verify import verify
from converters.write_models import write_onnx, write_torch
from prototxt_gen.common.errors import NetError
from prototxt_gen.weights import Weights

Array = np.ndarray[Any, Any]
GOLDEN = Path(__file__).parents[1] / "golden" / "python_proposal.npz"
"""Recorded from py-faster-rcnn's ProposalLayer with py_cpu_nms, two sets of parameters."""
CASES = {"plain": "'feat_stride': 16", "scales": "{'feat_stride': 8, 'scales': [1, 2], 'ratios': [0.5, 1, 1.7]}"}
ANCHORS = {"plain": 9, "scales": 6}


def net(folder: Path, param_str: str, anchors: int, images: int = 1) -> Path:
    sizes = {"score": (images, 2 * anchors, 5, 6), "move": (images, 4 * anchors, 5, 6), "info": (images, 3)}
    lines = [
        f'input: "{name}" input_shape {{ {" ".join(f"dim: {d}" for d in shape)} }}' for name, shape in sizes.items()
    ]
    bottoms = " ".join(f'bottom: "{name}"' for name in sizes)
    code = f'module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "{param_str}"'
    lines.append(f'layer {{ name: "p" type: "Python" {bottoms} top: "rois" top: "scores" python_param {{ {code} }} }}')
    path = folder / "net.prototxt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("case", CASES)
def test_regions_match_the_python_layer(case: str, tmp_path: Path) -> None:
    caffe_model = read_net_with_weights(net(tmp_path, CASES[case], ANCHORS[case]), Weights({}))
    with np.load(GOLDEN) as stored:
        record = {name.partition("/")[2]: stored[name] for name in stored.files if name.startswith(case)}
    inputs = {name: record[name] for name in ("score", "move", "info")}
    report = verify(caffe_model, inputs, ("torch", "onnx"), {"python": lambda *_: record})
    assert report.verified, report
    write_onnx(caffe_model, tmp_path / "m.onnx", verify_output=False)
    made = run_onnx_file(tmp_path / "m.onnx", inputs)
    for name in ("rois", "scores"):
        np.testing.assert_allclose(made[name], record[name], rtol=1e-4, atol=1e-4)
    assert write_torch(caffe_model, tmp_path / "torch").report is not None


def test_assumed_configuration_is_reported() -> None:
    from prototxt_gen import layers
    from prototxt_gen.net.prototxt_reader import parse_net

    text = 'layer { type: "Python" name: "p" python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" %s } }'
    (layer,) = parse_net(text % 'param_str: "feat_stride: 16"').layers
    assert "RPN_POST_NMS_TOP_N 300" in layers.layer_type_of(layer).assumed(layer)
    (layer,) = parse_net(text % "param_str: \"{'feat_stride': 16, 'RPN_POST_NMS_TOP_N': 7}\"").layers
    assert "RPN_POST_NMS_TOP_N" not in layers.layer_type_of(layer).assumed(layer)


def test_param_str_overrides_the_assumed_configuration(tmp_path: Path) -> None:
    caffe_model = read_net_with_weights(net(tmp_path, "{'feat_stride': 16, 'RPN_POST_NMS_TOP_N': 7}", 9), Weights({}))
    assert caffe_model.analysis.rows[-1].tops == ((7, 5), (7, 1))
    assert "RPN_NMS_THRESH 0.7" in caffe_model.remarks[-1]


@pytest.mark.parametrize(
    ("param_str", "anchors", "images", "words"),
    [
        ("'feat_stride': 16", 9, 2, "needs 1x18xHxW"),
        ("'feat_stride': 16", 6, 1, "with 9 anchors"),
        ("'scales': [8]", 3, 1, "no feat_stride"),
        ("- 16", 9, 1, "is not a YAML mapping"),
    ],
)
def test_wrong_bottoms_and_parameters_are_refused(
    param_str: str, anchors: int, images: int, words: str, tmp_path: Path
) -> None:
    with pytest.raises(NetError, match=words):
        read_net_with_weights(net(tmp_path, param_str, anchors, images), Weights({}), ReadOptions())


def test_roi_pooling_of_no_region_returns_an_empty_blob(tmp_path: Path) -> None:
    import torch

    from prototxt_gen import layers
    from prototxt_gen.net.prototxt_reader import parse_net

    text = 'layer { name: "r" type: "ROIPooling" bottom: "x" bottom: "rois" top: "y" roi_pooling_param { %s } }'
    (layer,) = parse_net(text % "pooled_h: 2 pooled_w: 3").layers
    module = layers.layer_type_of(layer).torch(layer, [(1, 4, 6, 6), (3, 5)])
    assert module(torch.zeros(1, 4, 6, 6), torch.zeros(0, 5)).shape == (0, 4, 2, 3)
