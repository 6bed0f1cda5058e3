"""The outputs of converted models: those of real Caffe, in real Caffe's order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from converters import read_net_with_weights
from converters.common.net_with_weights import NetWithWeights
from converters.pytorch_export.output_files import load_folder, load_pt2, read_safetensors_metadata
from converters.write_models import write_onnx, write_torch
from prototxt_gen import parse_net
from prototxt_gen.evaluate.converted_predictors import open_converted
from prototxt_gen.evaluate.predictors import score_output
from prototxt_gen.net.lowering_checks import computed_outputs
from prototxt_gen.passes.to_deploy import to_deploy
from tests.support.caffe_support import caffe_or_skip

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }\n'


def power(bottom: str, top: str, shift: float = 1) -> str:
    """A layer whose top tells which layer made it."""
    return f'layer {{ name: "{top}" type: "Power" bottom: "{bottom}" top: "{top}" power_param {{ shift: {shift} }} }}\n'


SILENCED = INPUT + (
    'layer { name: "cut" type: "Slice" bottom: "data" top: "left" top: "right" }\n'
    + power("left", "block/quiet", 2)
    + power("right", "result", 3)
    + 'layer { name: "block/silence" type: "Silence" bottom: "block/quiet" }\n'
)
"""Here a class of model.py has only silenced blobs."""
NETS = {
    "order of bytes": INPUT + "".join(power("data", name, n) for n, name in enumerate(("b", "a", "Z", "_", "a/b"))),
    "beyond ASCII": INPUT + "".join(power("data", name, n) for n, name in enumerate(("é", "z", "ä", "日本"))),
    "in place": INPUT + power("data", "z") + power("z", "z", 2) + power("data", "a", 3),
    "several tops": INPUT + 'layer { name: "s" type: "Slice" bottom: "data" top: "two" top: "one" }\n',
    "silenced": SILENCED,
    "silenced in place": INPUT + power("data", "a") + power("data", "b", 2) + power("a", "a", 3)
    + 'layer { name: "q" type: "Silence" bottom: "a" }\n',
    "only the blob of a constant": INPUT + power("data", "z")
    + 'layer { name: "c" type: "DummyData" top: "c" dummy_data_param { shape { dim: 2 } data_filler { value: 7 } } }\n',
}  # fmt: skip


@pytest.fixture(params=NETS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> NetWithWeights:
    (tmp_path / "net.prototxt").write_text(f'name: "n"\n{NETS[request.param]}', encoding="utf-8")
    return read_net_with_weights(tmp_path / "net.prototxt", None)


def expected(model: NetWithWeights) -> dict[str, Any]:
    """Return the outputs of real Caffe, in its order, for an input of ones."""
    net = caffe_or_skip().Net(str(model.prototxt), 1)
    net.blobs["data"].data[...] = 1
    net.forward()
    return {name: net.blobs[name].data.copy() for name in net.outputs}


def assert_same(found: list[Any], wanted: dict[str, Any]) -> None:
    assert len(found) == len(wanted)
    for array, (name, value) in zip(found, wanted.items(), strict=True):
        np.testing.assert_allclose(array, value, rtol=1e-6, err_msg=name)


@pytest.mark.caffe
def test_onnx_has_caffes_outputs(model: NetWithWeights, tmp_path: Path) -> None:
    import onnxruntime

    wanted = expected(model)
    write_onnx(model, tmp_path / "n.onnx", verify_output=False)
    assert [value.name for value in onnx.load(tmp_path / "n.onnx").graph.output] == list(wanted)
    session = onnxruntime.InferenceSession(tmp_path / "n.onnx")
    assert_same(session.run(None, {"data": np.ones((1, 2, 4, 4), np.float32)}), wanted)


@pytest.mark.caffe
@pytest.mark.parametrize("form", ["folder", "pt2"])
def test_pytorch_has_caffes_outputs(model: NetWithWeights, tmp_path: Path, form: str) -> None:
    import torch

    wanted = expected(model)
    write_torch(model, tmp_path / "out", form, verify_output=False)
    module = (load_folder if form == "folder" else load_pt2)(tmp_path / "out")
    outputs = module(torch.ones(1, 2, 4, 4))
    assert_same(list(outputs) if isinstance(outputs, (tuple, list)) else [outputs], wanted)
    if form == "folder":
        stored = read_safetensors_metadata(tmp_path / "out" / "model.safetensors")["caffe.outputs"]
        assert json.loads(stored) == list(wanted)


def test_scores_are_the_output_of_the_last_layer_in_every_format(tmp_path: Path) -> None:
    """With outputs sorted by name, the last one is not the last layer's."""
    pool = 'layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { global_pooling: true } }\n'
    text = INPUT + pool + power("p", "z") + power("p", "a", 2)
    (tmp_path / "net.prototxt").write_text(text)
    model = read_net_with_weights(tmp_path / "net.prototxt", None)
    assert score_output(model).blob == "a"
    write_onnx(model, tmp_path / "n.onnx", verify_output=False)
    write_torch(model, tmp_path / "n.pt2", "pt2", verify_output=False)
    write_torch(model, tmp_path / "folder", verify_output=False)
    for name in ("n.onnx", "n.pt2", "folder"):
        predictor, _ = open_converted(tmp_path / name)
        np.testing.assert_allclose(predictor(np.ones((1, 2, 4, 4), np.float32)).ravel(), 3, err_msg=name)


def test_silenced_blobs_of_a_train_val_are_no_outputs_of_its_deploy_net() -> None:
    """Neither a blob of the net, nor a label, nor what a loss computes."""
    net = parse_net(
        'layer { name: "d" type: "Data" top: "data" top: "label" transform_param { crop_size: 4 } '
        'data_param { batch_size: 2 } }\n'
        + power("data", "a") + power("data", "b")
        + 'layer { name: "q" type: "Silence" bottom: "label" bottom: "a" }\n'
        'layer { name: "q2" type: "Silence" bottom: "label" }\n'
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "b" bottom: "label" top: "l" top: "p" }\n'
        'layer { name: "q3" type: "Silence" bottom: "p" }\n'
    )  # fmt: skip
    deploy = to_deploy(net, {"data": (2, 3, 4, 4), "label": (2,)})
    assert [value.blob for value in computed_outputs(deploy)] == ["prob"]
