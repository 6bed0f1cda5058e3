"""Losses and detection layers beyond the laws: errors, fields of other forks, and gradients that are not recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from tests import golden

Array = np.ndarray[Any, Any]


def layer_of(type_: str, shapes: tuple[Shape, ...], params: str = "", tops: int = 1) -> tuple[LayerType, Layer]:
    layer_type = layers.all_layer_types()[type_]
    return layer_type, golden.layer_of(layer_type, Example("one", shapes, params, tops))


FAULTS = [
    ("SoftmaxWithLoss", ((2, 3, 4), (2, 3)), "", "needs 8 labels"),
    ("SoftmaxWithLoss", ((2, 3), (2,)), "softmax_param { axis: 2 }", "axis 2 is not an axis"),
    ("EuclideanLoss", ((2, 3), (2, 4)), "", "needs equal sizes"),
    ("EuclideanLoss", ((2, 3), (3, 2)), "", "equal batch sizes"),
    ("SigmoidCrossEntropyLoss", ((2, 3), (2, 3, 2)), "", "needs equal sizes"),
    ("MultinomialLogisticLoss", ((2, 3), (2, 2)), "", "one for each item"),
    ("ContrastiveLoss", ((2, 3), (2, 4), (2,)), "", "equal numbers of channels"),
    ("ContrastiveLoss", ((2, 3, 2), (2, 3, 2), (2,)), "", "heights and widths of 1"),
    ("InfogainLoss", ((2, 3), (2,)), "", "needs a matrix"),
    ("InfogainLoss", ((2, 3), (2,), (3, 2)), "", "it needs 9 elements"),
    ("InfogainLoss", ((2, 3), (2,), (3, 3)), "loss_param { normalize: true }", "use normalization"),
    ("Accuracy", ((2, 3), (2,)), "accuracy_param { top_k: 4 }", "greater than the number of classes, 3"),
    ("HingeLoss", ((2, 3, 1, 1, 1), (2,)), "", "at most 4"),
    ("SmoothL1Loss", ((2, 3), (2, 4)), "", "equal channels"),
    ("PriorBox", ((1, 1, 2, 2), (1, 1, 9, 9)), "", "min_size"),
    (
        "PriorBox",
        ((1, 1, 2, 2), (1, 1, 9, 9)),
        "prior_box_param { min_size: 4 max_size: 4 }",
        "greater than its min_size",
    ),
    (
        "PriorBox",
        ((1, 1, 2, 2), (1, 1, 9, 9)),
        "prior_box_param { min_size: 4 variance: 1 variance: 2 }",
        "one or four",
    ),
    ("PriorBox", ((1, 1, 2, 2), (1, 1, 9, 9)), "prior_box_param { min_size: 4 step: 2 step_h: 2 }", "not both"),
    ("PriorBox", ((1, 1, 2, 2), (1, 1, 9, 9)), "prior_box_param { min_size: 4 img_h: 2 }", "greater than 0"),
    ("PriorBoxClustered", ((1, 1, 2, 2), (1, 1, 9, 9)), "prior_box_param { width: 4 }", "equally many"),
    ("DetectionOutput", ((1, 8), (1, 4), (1, 2, 8)), "", "num_classes"),
    ("DetectionOutput", ((1, 8), (1, 4), (1, 2, 8)), "detection_output_param { num_classes: 3 }", "6 scores"),
    (
        "DetectionOutput",
        ((1, 8), (1, 4), (1, 2, 8)),
        "detection_output_param { num_classes: 2 background_label_id: -1 }",
        "share_location",
    ),
    ("MultiBoxLoss", ((1, 8), (1, 4), (1, 2, 8), (1, 1, 1, 8)), "", "num_classes"),
    (
        "MultiBoxLoss",
        ((1, 16), (1, 4), (1, 2, 8), (1, 1, 1, 8)),
        "multibox_loss_param { num_classes: 2 share_location: false }",
        "mining needs share_location",
    ),
    ("ROIPooling", ((1, 1, 4, 4), (2, 4)), "roi_pooling_param { pooled_h: 2 pooled_w: 2 }", "rows of 5"),
    ("ROIPooling", ((1, 1, 4, 4), (2, 5)), "", "pooled_h and pooled_w"),
    (
        "PSROIPooling",
        ((1, 7, 4, 4), (2, 5)),
        "psroi_pooling_param { spatial_scale: 1 output_dim: 2 group_size: 2 }",
        "channels, 8",
    ),
    ("Proposal", ((1, 2, 4, 4), (1, 4, 4, 4), (1, 4)), "", "at least one ratio"),
]


@pytest.mark.parametrize(("type_", "shapes", "params", "words"), FAULTS)
def test_error_names_the_layer(type_: str, shapes: tuple[Shape, ...], params: str, words: str) -> None:
    layer_type, layer = layer_of(type_, shapes, params)
    with pytest.raises(NetError, match=rf"layer 'it' \({type_}\)") as told:
        layer_type.infer(layer, shapes)
    assert words in str(told.value)


def test_two_tops_need_two_loss_weights() -> None:
    layer_type, layer = layer_of("SoftmaxWithLoss", ((2, 3), (2,)), "loss_weight: 1", tops=2)
    with pytest.raises(NetError, match="a loss_weight for each top"):
        layer_type.infer(layer, ((2, 3), (2,)))


def test_min_is_better_accuracy_ranks_the_smallest_first() -> None:
    import torch

    layer_type, layer = layer_of("Accuracy", ((4, 2), (4,)), "accuracy_param { min_is_better: true }")
    distances = torch.tensor([[0.1, 1.0], [0.1, 1.0], [3.0, 2.0], [4.0, 1.0]])
    assert layer_type.torch(layer, ((4, 2), (4,)))(distances, torch.tensor([0.0, 1.0, 1.0, 1.0])).item() == 0.75


def test_eta_with_an_effect_has_no_onnx_form() -> None:
    from converters.onnx_export.onnx_graph import Graph

    shapes = ((1, 8), (1, 4), (1, 2, 8))
    layer_type, layer = layer_of(
        "DetectionOutput", shapes, "detection_output_param { num_classes: 2 nms_param { eta: 0.9 nms_threshold: 0.7 } }"
    )
    g = Graph(opset=20)
    for name, shape in zip("abc", shapes, strict=True):
        g.set_shape(name, shape)
    with pytest.raises(UnsupportedError, match="eta"):
        layer_type.onnx(g, layer, list("abc"), {})


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_smooth_l1_of_faster_rcnn_weights_its_gradient(sigma: float) -> None:
    """Compared with the formulas of intel/caffe's smooth_L1_loss_layer.cpp, in NumPy."""
    import torch

    rng = np.random.default_rng(0)
    x, target, inside, outside = rng.standard_normal((4, 2, 6))
    layer_type, layer = layer_of("SmoothL1Loss", ((2, 6),) * 4, f"smooth_l1_loss_param {{ sigma: {sigma} }}")
    a, b = (torch.tensor(v, requires_grad=True) for v in (x, target))
    value = layer_type.torch(layer, ((2, 6),) * 4)(a, b, torch.tensor(inside), torch.tensor(outside))
    value.backward()
    gap, square = inside * (x - target), sigma**2
    small = np.abs(gap) < 1 / square
    errors = outside * np.where(small, gap**2 * square / 2, np.abs(gap) - 0.5 / square)
    slope = np.where(small, square * gap, np.sign(gap)) * inside * outside / 2
    assert value.item() == pytest.approx(errors.sum() / 2)
    assert a.grad is not None and b.grad is not None
    np.testing.assert_allclose(a.grad, slope, atol=1e-12)
    np.testing.assert_allclose(b.grad, -slope, atol=1e-12)


def test_smooth_l1_of_fast_rcnn_does_not_weight_its_gradient() -> None:
    """Source: yjxiong/caffe src/caffe/layers/smooth_L1_loss_layer.cu Backward_gpu."""
    import torch

    layer_type, layer = layer_of("SmoothL1Loss", ((1, 3),) * 3)
    x = torch.tensor([[0.5, 2.0, -4.0]], requires_grad=True)
    value = layer_type.torch(layer, ((1, 3),) * 3)(x, torch.zeros(1, 3), torch.tensor([[0.5, 0.25, 0.0]]))
    value.backward()
    assert value.item() == pytest.approx(0.25**2 / 2 + 0.5**2 / 2)
    assert x.grad is not None
    assert x.grad.tolist() == [[0.25, 0.5, 0.0]]


def test_psroi_pooling_averages_the_channels_of_each_cell() -> None:
    import torch

    shapes = ((1, 8, 4, 4), (1, 5))
    layer_type, layer = layer_of(
        "PSROIPooling", shapes, "psroi_pooling_param { spatial_scale: 0.5 output_dim: 2 group_size: 2 }"
    )
    x = torch.arange(128.0).reshape(shapes[0])
    top = layer_type.torch(layer, shapes)(x, torch.tensor([[0.0, 0.0, 2.0, 3.0, 7.0]]))
    rows, columns = ((1, 3), (2, 4)), ((0, 1), (1, 2))  # y from 1 to 4, x from 0 to 2, cut in two and widened to pixels
    for channel, (top_row, left) in enumerate((r, c) for _ in (0, 1) for r in rows for c in columns):
        cell = x[0, channel, top_row[0] : top_row[1], left[0] : left[1]]
        assert top.reshape(8)[channel].item() == pytest.approx(cell.mean().item())


@pytest.mark.caffe
@pytest.mark.parametrize("index", range(len(layers.all_layer_types()["MultiBoxLoss"].examples)))
def test_multibox_loss_gradient_matches_caffe(index: int, tmp_path: Path) -> None:
    """Recording forces gradients for all bottoms, which this layer refuses; here its bottoms come from Scale layers."""
    caffe, torch = pytest.importorskip("caffe"), pytest.importorskip("torch")
    layer_type = layers.all_layer_types()["MultiBoxLoss"]
    example = layer_type.examples[index]
    bottoms, _, _ = golden.draw(layer_type, example)
    file = tmp_path / "net.prototxt"
    file.write_text(_net_with_scale_layers(example))
    net = caffe.Net(str(file), caffe.TRAIN)
    for i, bottom in enumerate(bottoms):
        net.blobs[f"b{i}"].data[...] = bottom
    net.forward()
    net.backward()
    tensors = [torch.tensor(b, requires_grad=i < 2) for i, b in enumerate(bottoms)]
    value = layer_type.torch(golden.layer_of(layer_type, example), example.bottoms)(*tensors)
    value.backward()
    for i, tensor in enumerate(tensors[:2]):
        wanted = net.blobs[f"s{i}"].diff
        got = np.zeros_like(wanted) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def _net_with_scale_layers(example: Example) -> str:
    lines = []
    for i, shape in enumerate(example.bottoms):
        lines.append(f'input: "b{i}" input_shape {{ {" ".join(f"dim: {d}" for d in shape)} }}')
    one = 'scale_param { filler { type: "constant" value: 1 } }'
    lines += [f'layer {{ name: "s{i}" type: "Scale" bottom: "b{i}" top: "s{i}" {one} }}' for i in (0, 1)]
    bottoms = 'bottom: "s0" bottom: "s1" bottom: "b2" bottom: "b3"'
    return "\n".join([*lines, f'layer {{ name: "it" type: "MultiBoxLoss" {bottoms} top: "loss" {example.params} }}'])
