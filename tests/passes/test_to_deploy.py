"""Train_val to deploy net: which heads and inputs it has, its batch size, and that it runs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from prototxt_gen import checks
from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Net, Shape
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.render import net_text
from prototxt_gen.passes.to_deploy import deployment_of
from prototxt_gen.text import parse
from tests.support.caffe_support import caffe_or_skip, make_net
from tests.support.sane_weights import sane_weights

IMAGES = (
    "transform_param { crop_size: 8 mean_value: 1 mean_value: 2 mean_value: 3 } "
    'data_param { source: "a" batch_size: 6 }'
)


def data(*tops: str, kind: str = "Data", fields: str = IMAGES) -> str:
    names = " ".join(f'top: "{top}"' for top in tops)
    return f'layer {{ name: "{tops[0]}_source" type: "{kind}" {names} {fields} }}\n'


def layer(kind: str, bottoms: str, top: str, fields: str = "") -> str:
    names = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    tops = " ".join(f'top: "{name}"' for name in top.split())
    return f'layer {{ name: "{(top or bottoms).split()[0]}" type: "{kind}" {names} {tops} {fields} }}\n'


def dense(bottom: str, top: str, count: int = 3, fields: str = "") -> str:
    return layer("InnerProduct", bottom, top, f"inner_product_param {{ num_output: {count} }} {fields}")


def python(bottoms: str, top: str, name: str, fields: str = "") -> str:
    return layer("Python", bottoms, top, f'python_param {{ module: "m" layer: "{name}" }} {fields}')


def hdf5(*tops: str) -> str:
    return data(*tops, kind="HDF5Data", fields=HDF5)


HDF5 = 'hdf5_data_param { source: "a" batch_size: 6 }'
SOFTMAX = layer("SoftmaxWithLoss", "ip label", "loss")


class Case(NamedTuple):
    text: str
    inputs: dict[str, Shape]
    outputs: list[str]
    shapes: dict[str, Shape] = {}


X: dict[str, Shape] = {"x": (2, 5)}
CASES = {
    "classifier": Case(data("data", "label") + dense("data", "ip") + SOFTMAX, {"data": (1, 3, 8, 8)}, ["prob"]),
    "label first": Case(
        hdf5("label", "x") + dense("x", "ip") + SOFTMAX, X, ["prob"], X
    ),
    "two streams": Case(
        hdf5("label", "left", "right")
        + dense("left", "a") + dense("right", "b") + layer("Concat", "a b", "ab") + dense("ab", "ip") + SOFTMAX,
        {"left": (2, 5), "right": (2, 4)}, ["prob"], {"left": (2, 5), "right": (2, 4)},
    ),
    "siamese": Case(
        hdf5("pair", "sim")
        + layer("Slice", "pair", "a b", "slice_param { slice_point: 1 }")
        + dense("a", "fa", fields='param { name: "w" lr_mult: 1 } param { name: "b" }')
        + dense("b", "fb", fields='param { name: "w" lr_mult: 1 } param { name: "b" }')
        + layer("ContrastiveLoss", "fa fb sim", "loss"),
        {"pair": (1, 2, 4, 4)}, ["fa", "fb"], {"pair": (1, 2, 4, 4)},
    ),
    "triplet": Case(
        hdf5("anchor", "near", "far")
        + dense("anchor", "a") + dense("near", "n") + dense("far", "f")
        + python("a n f", "loss", "TripletLossLayer", "loss_weight: 1"),
        {"anchor": (2, 5), "near": (2, 5), "far": (2, 5)}, ["a", "n", "f"],
        {"anchor": (2, 5), "near": (2, 5), "far": (2, 5)},
    ),
    "mask of the scores": Case(
        hdf5("x", "label", "mask")
        + dense("x", "ip") + layer("Eltwise", "ip mask", "kept", "eltwise_param { operation: PROD }")
        + layer("EuclideanLoss", "kept label", "loss"),
        {"x": (2, 5), "mask": (2, 3)}, ["kept"], {"x": (2, 5), "mask": (2, 3)},
    ),
    "weights of the loss": Case(
        hdf5("x", "label", "inside", "outside")
        + dense("x", "ip") + layer("SmoothL1Loss", "ip label inside outside", "loss"),
        X, ["ip"], X,
    ),
    "the label comes first in the loss": Case(
        hdf5("x", "label") + dense("x", "ip") + layer("EuclideanLoss", "label ip", "loss"),
        X, ["ip"], X,
    ),
    "cont of an LSTM": Case(
        hdf5("cont", "words", "target")
        + layer("Embed", "words", "e", "embed_param { input_dim: 9 num_output: 4 bias_term: false }")
        + layer("LSTM", "e cont", "h", "recurrent_param { num_output: 5 }")
        + layer("InnerProduct", "h", "ip", "inner_product_param { num_output: 9 axis: 2 }")
        + layer("SoftmaxWithLoss", "ip target", "loss", "softmax_param { axis: 2 }"),
        {"cont": (3, 2), "words": (3, 2)}, ["prob"], {"cont": (3, 2), "words": (3, 2)},
    ),
    "autoencoder": Case(
        hdf5("x") + dense("x", "code") + dense("code", "back", 5)
        + layer("SigmoidCrossEntropyLoss", "back x", "loss"),
        X, ["prob"], X,
    ),
    "heads with labels of their own": Case(
        hdf5("x", "label")
        + layer("Slice", "label", "class box", "slice_param { slice_point: 1 }") + dense("x", "scores")
        + layer("SoftmaxWithLoss", "scores class", "loss") + dense("x", "move", 4)
        + layer("EuclideanLoss", "move box", "box_loss", "loss_weight: 0.5"),
        X, ["move", "prob"], X,
    ),
    "auxiliary head at another scale": Case(
        hdf5("data", "label")
        + layer("Convolution", "data", "stem", "convolution_param { num_output: 3 kernel_size: 1 }")
        + layer("Convolution", "stem", "c", "convolution_param { num_output: 3 kernel_size: 1 }")
        + layer("Pooling", "stem", "small", "pooling_param { kernel_size: 2 stride: 2 }")
        + layer("Convolution", "small", "aux", "convolution_param { num_output: 3 kernel_size: 1 }")
        + layer("Interp", "label", "small_label", "interp_param { height: 4 width: 4 }")
        + layer("SoftmaxWithLoss", "aux small_label", "aux_loss", "loss_weight: 0.4")
        + layer("SoftmaxWithLoss", "c label", "loss"),
        {"data": (1, 3, 8, 8)}, ["prob"], {"data": (1, 3, 8, 8)},
    ),
    "losses of equal weight": Case(
        hdf5("x", "label") + dense("x", "a") + dense("x", "b")
        + layer("SoftmaxWithLoss", "a label", "la") + layer("SoftmaxWithLoss", "b label", "lb"),
        X, ["prob", "prob2"], X,
    ),
    "a refined prediction is not auxiliary": Case(
        hdf5("x", "label") + dense("x", "coarse") + dense("coarse", "fine")
        + layer("EuclideanLoss", "coarse label", "l1", "loss_weight: 0.3")
        + layer("EuclideanLoss", "fine label", "l2", "loss_weight: 0.1"),
        X, ["fine"], X,
    ),
    "features with a center loss": Case(
        hdf5("x", "label") + dense("x", "f") + dense("f", "ip")
        + layer("CenterLoss", "f label", "center", "loss_weight: 0.01 center_loss_param { num_output: 3 }") + SOFTMAX,
        X, ["prob"], X,
    ),
    "a margin needs the label": Case(
        hdf5("x", "label") + dense("x", "f")
        + layer("MarginInnerProduct", "f label", "scores lambda", "margin_inner_product_param { num_output: 4 }")
        + layer("SoftmaxWithLoss", "scores label", "loss"),
        X, ["f"], X,
    ),
    "a margin of happynear": Case(
        hdf5("x", "label") + dense("x", "ip")
        + layer("LabelSpecificAdd", "ip label", "moved") + layer("SoftmaxWithLoss", "moved label", "loss"),
        X, ["prob"], X,
    ),
    "infogain": Case(
        hdf5("x", "label", "H") + dense("x", "ip")
        + layer("InfogainLoss", "ip label H", "loss"),
        X, ["prob"], X,
    ),
    "infogain of probabilities": Case(
        hdf5("x", "label", "H") + dense("x", "ip") + layer("Softmax", "ip", "p")
        + layer("InfogainLoss", "p label H", "loss"),
        X, ["p"], X,
    ),
    "python loss without loss_weight": Case(
        hdf5("x", "label") + dense("x", "ip") + python("ip label", "loss", "DiceLoss"),
        X, ["ip"], X,
    ),
    "python layer that measures": Case(
        hdf5("x", "label") + dense("x", "ip") + SOFTMAX + python("ip label", "iou", "Iou"),
        X, ["prob"], X,
    ),
    "python layer that drops items without a label": Case(
        hdf5("x", "label") + dense("x", "ip")
        + python("ip label", "valid valid_label", "Bridge") + layer("SoftmaxWithLoss", "valid valid_label", "loss"),
        X, ["prob"], X,
    ),
    "loss of plain layers": Case(
        hdf5("x", "label") + dense("x", "ip")
        + layer("Eltwise", "ip label", "gap", "eltwise_param { coeff: 1 coeff: -1 }")
        + layer("Reduction", "gap", "loss", "reduction_param { operation: SUMSQ } loss_weight: 1"),
        X, ["ip"], X,
    ),
    "softmax as second top, in the middle": Case(
        hdf5("x", "label") + dense("x", "ip")
        + layer("SoftmaxWithLoss", "ip label", "loss p", "loss_weight: 1 loss_weight: 0")
        + layer("ArgMax", "p", "best"),
        X, ["best"], X,
    ),
    "a top that only labels need is silenced": Case(
        hdf5("x", "label") + dense("x", "f", 4)
        + layer("Slice", "f", "ip other", "slice_param { slice_point: 2 }") + SOFTMAX
        + layer("EuclideanLoss", "other label", "aux", "loss_weight: 0.1") + layer("Silence", "other", ""),
        X, ["other", "prob"], X,
    ),
    "no data layer in TEST": Case(
        data("data", "label", fields=IMAGES + " include { phase: TRAIN }") + dense("data", "ip") + SOFTMAX,
        {"data": (1, 3, 8, 8)}, ["prob"],
    ),
    "no data layer at all": Case(dense("x", "ip") + SOFTMAX, {"x": (4, 5)}, ["prob"], {"x": (4, 5)}),
    "a batch that a Reshape fixes": Case(
        data("data", "label") + dense("data", "f", 8)
        + layer("Reshape", "f", "r", "reshape_param { shape { dim: 6 dim: 4 dim: 2 } }") + dense("r", "ip") + SOFTMAX,
        {"data": (6, 3, 8, 8)}, ["prob"],
    ),
    "a Reshape that would mix channels into the batch": Case(
        data("data", "label") + dense("data", "f", 12)
        + layer("Reshape", "f", "ip", "reshape_param { shape { dim: 6 dim: -1 } }") + SOFTMAX,
        {"data": (6, 3, 8, 8)}, ["prob"],
    ),
    "a batch that a Slice needs": Case(
        data("data", "label") + layer("Slice", "data", "a p n", "slice_param { axis: 0 }")
        + dense("a", "fa") + dense("p", "fp") + dense("n", "fn") + python("fa fp fn", "loss", "TripletLoss"),
        {"data": (6, 3, 8, 8)}, ["fa", "fp", "fn"],
    ),
    "constants as data": Case(
        layer("DummyData", "", "data label", "dummy_data_param { shape { dim: 6 dim: 5 } shape { dim: 6 } }")
        + dense("data", "ip") + SOFTMAX,
        {"data": (1, 5)}, ["prob"],
    ),
    "in place on an input": Case(
        data("data", "label") + 'layer { name: "p" type: "Power" bottom: "data" top: "data" }\n'
        + dense("data", "ip") + SOFTMAX,
        {"data": (1, 3, 8, 8)}, ["prob"],
    ),
}  # fmt: skip


def written(net: Net) -> Net:
    """Return the net as it is read from its text, after a check without errors."""
    text = net_text(net)
    again = parse_net(text)
    assert [str(p) for p in checks.check_net(again, parse(text)) if p.severity == checks.ERROR] == []
    return again


@pytest.mark.parametrize("name", CASES)
def test_a_deploy_net_has_these_inputs_and_outputs_and_runs(name: str) -> None:
    case = CASES[name]
    net = written(deployment_of(parse_net(case.text), case.shapes).net)
    assert {value.blob: value.shape for value in net.inputs} == case.inputs
    assert sorted(value.blob for value in net.outputs) == sorted(case.outputs)
    analysis = analyse(net)
    assert analysis.complete
    sane_weights(analysis)  # runs the net


@pytest.mark.caffe
@pytest.mark.parametrize("name", [name for name in CASES if name != "auxiliary head at another scale"])
def test_real_caffe_runs_the_deploy_net(name: str, tmp_path: Path) -> None:
    caffe_or_skip()
    case = CASES[name]
    net = deployment_of(parse_net(case.text), case.shapes).net
    made = make_net(tmp_path, net_text(net))
    made.forward()
    assert sorted(made.outputs) == sorted(case.outputs)
    assert {blob: tuple(made.blobs[blob].shape) for blob in made.inputs} == case.inputs


def test_shared_parameters_stay_shared() -> None:
    net = deployment_of(parse_net(CASES["siamese"].text), CASES["siamese"].shapes).net
    assert [[spec.name for spec in one.params.param] for one in net.layers[1:]] == [["w", "b"]] * 2
    assert "lr_mult" not in net_text(net)


def test_the_axis_of_the_softmax_stays() -> None:
    net = deployment_of(parse_net(CASES["cont of an LSTM"].text), CASES["cont of an LSTM"].shapes).net
    assert "axis: 2" in net_text(net).rpartition("Softmax")[2]


def test_remarks_name_the_auxiliary_head_and_its_layers() -> None:
    case = CASES["auxiliary head at another scale"]
    (remark,) = deployment_of(parse_net(case.text), case.shapes).remarks
    assert "auxiliary head 'aux_loss' (SoftmaxWithLoss, loss_weight 0.4)" in remark
    assert "layers 'small', 'aux'" in remark and "'loss' (SoftmaxWithLoss, loss_weight 1)" in remark


def test_remarks_name_the_layer_that_keeps_the_batch() -> None:
    case = CASES["a batch that a Reshape fixes"]
    (remark,) = deployment_of(parse_net(case.text)).remarks
    assert "the batch size stays" in remark and "layer 'r' (Reshape)" in remark


@pytest.mark.parametrize("batch", [1, 4])
def test_a_given_shape_is_kept(batch: int) -> None:
    net = deployment_of(parse_net(CASES["classifier"].text), {"data": (batch, 3, 9, 9)}).net
    assert net.inputs[0].shape == (batch, 3, 9, 9)


def test_a_shape_is_needed_only_for_what_the_net_reads() -> None:
    with pytest.raises(NetError) as caught:
        deployment_of(parse_net(CASES["two streams"].text))
    assert "--shape left=" in str(caught.value) and "--shape right=" in str(caught.value)
    assert "label" not in str(caught.value)


STAGES = (
    data("data", "label", fields=IMAGES + ' include { stage: "train" }')
    + dense("data", "f", 6)
    + layer("Reshape", "f", "ip", 'reshape_param { shape { dim: 0 dim: 2 dim: 3 } } include { stage: "wide" }')
    + layer("Softmax", "ip", "p", 'include { stage: "wide" }')
)


def test_stages_select_layers() -> None:
    net = deployment_of(parse_net(STAGES), stages=("wide",)).net
    assert [value.blob for value in net.outputs] == ["p"]
    assert [value.blob for value in deployment_of(parse_net(STAGES)).net.outputs] == ["f"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (layer("EuclideanLoss", "a b", "loss"), "nothing is left that computes an output: layer 'loss'"),
        (dense("x", "ip") + SOFTMAX, "no layer of this phase makes 'x'.*--shape x="),
        (
            data("data", "label")
            + layer("Split", "data", "s", "include { phase: TRAIN }")
            + dense("s", "ip")
            + SOFTMAX,
            r"layer 's' \(Split\) makes it with another --phase",
        ),
        (
            data("data", "label") + dense("late", "ip") + dense("data", "late") + SOFTMAX,
            "'late' is read before a layer computes it",
        ),
        (
            data("data", "label") + dense("data", "a") + layer("Eltwise", "a data", "ip") + SOFTMAX,
            r"would not run: layer 'ip' \(Eltwise\): bottoms differ",
        ),
    ],
)
def test_a_net_that_would_not_run_is_an_error(text: str, message: str) -> None:
    with pytest.raises(NetError, match=message):
        deployment_of(parse_net(text))
