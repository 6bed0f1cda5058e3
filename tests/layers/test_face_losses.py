"""CenterLoss and MarginInnerProduct, compared with loops that follow the C++ code of their forks, gradients too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError, UnsupportedError
from tests.layers.test_utility_layers import layer_of
from tests.layers.test_utility_layers import run_torch as tops_of

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(19)
LABELS = np.array([2.0, 0.0, 2.0, 1.0, 2.0])


def module_and_labels(type_: str, x: Array, params: str, blob: Array, tops: int = 1) -> tuple[Any, Any]:
    import torch

    shapes = [x.shape, LABELS.shape]
    layer_type, layer = layers.all_layer_types()[type_], layer_of(type_, shapes, params, tops)
    layer_type.infer(layer, shapes)
    module = layer_type.torch(layer, shapes).double()
    (role,) = layer_type.blobs(layer, shapes)
    getattr(module, role).data.copy_(torch.from_numpy(blob))
    return module, torch.from_numpy(x).requires_grad_()


def test_center_loss_matches_caffe_face() -> None:
    import torch

    x, center = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3))
    module, bottom = module_and_labels("CenterLoss", x, "center_loss_param { num_output: 4 }", center)
    loss = module(bottom, torch.from_numpy(LABELS))
    distance = np.array([row - center[int(label)] for row, label in zip(x, LABELS, strict=True)])
    assert loss.item() == pytest.approx((distance * distance).sum() / 5 / 2)
    (loss * 0.25).backward()
    np.testing.assert_allclose(bottom.grad, distance * 0.25 / 5)
    wanted = np.zeros_like(center)
    for n in range(4):
        count = 0
        for m, label in enumerate(LABELS):
            if int(label) == n:
                count += 1
                wanted[n] -= distance[m]
        wanted[n] /= count + 1
    np.testing.assert_allclose(module.center.grad, wanted)


def margin_by_hand(kind: str, x: Array, weight: Array, diff: Array, blend: float) -> tuple[Array, Array, Array]:
    """Forward_cpu and Backward_cpu for normalised weights: the top, and the gradients of x and weight."""
    top, bottom_diff = x @ weight.T, np.zeros_like(x)
    for i, label in enumerate(LABELS.astype(int)):
        norm = math.sqrt(x[i] @ x[i])
        cos = x[i] @ weight[label] / norm
        s0 = np.sign(cos)
        if kind == "DOUBLE":
            value, w, v = 2 * s0 * cos**2 - 1, 4 * s0 * cos, 2 * s0 * cos**2 + 1
        elif kind == "TRIPLE":
            s1 = np.sign(abs(cos) - 0.5)
            s2 = s0 * (1 + s1) - 2
            value, w, v = s1 * (4 * cos**3 - 3 * cos) + s2, s1 * (12 * cos**2 - 3), 8 * s1 * cos**3 - s2
        else:
            s3 = s0 * np.sign(2 * cos**2 - 1)
            s4 = 2 * s0 + s3 - 3
            value = s3 * (8 * cos**4 - 8 * cos**2 + 1) + s4
            w, v = s3 * (32 * cos**3 - 16 * cos), s3 * (24 * cos**4 - 8 * cos**2 - 1) - s4
        angle = math.acos(cos) * {"DOUBLE": 2, "TRIPLE": 3, "QUADRUPLE": 4}[kind]
        k = int(angle / math.pi)
        assert value == pytest.approx((-1) ** k * math.cos(angle) - 2 * k)  # as the paper has it
        top[i, label] = norm * value
        v = -v / norm
        both = math.sqrt(w * w + v * v)
        for j in range(len(weight)):
            share = diff[i, j] / (1 + blend)
            bottom_diff[i] += share * (weight[j] if j != label else (w * weight[j] + v * x[i]) / both)
    top = (top + blend * x @ weight.T) / (1 + blend)
    return top, bottom_diff + blend / (1 + blend) * diff @ weight, diff.T @ x


@pytest.mark.parametrize("kind", ["DOUBLE", "TRIPLE", "QUADRUPLE"])
def test_margin_inner_product_matches_sphereface(kind: str) -> None:
    import torch

    x, weight, diff = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3)), RNG.normal(size=(5, 4))
    params = f"num_output: 4 type: {kind} base: 8 gamma: 0.5 power: 2 lambda_min: 0.3 iteration: 3"
    module, bottom = module_and_labels("MarginInnerProduct", x, f"margin_inner_product_param {{ {params} }}", weight, 2)
    length_one = weight / np.sqrt((weight * weight).sum(1))[:, None]
    for iteration in (4, 5, 6, 7, 8, 9, 10):
        blend = max(8 * (1 + 0.5 * iteration) ** -2, 0.3)
        bottom.grad = module.weight.grad = None
        top, share = module(bottom, torch.from_numpy(LABELS))
        top.backward(torch.from_numpy(diff))
        wanted = margin_by_hand(kind, x, length_one, diff, blend)
        assert share.item() == pytest.approx(blend)
        for got, hand in zip((top.detach(), bottom.grad, module.weight.grad), wanted, strict=True):
            np.testing.assert_allclose(got, hand, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(module.weight.detach(), length_one)


def test_single_is_a_plain_inner_product() -> None:
    x, weight = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3))
    blob = {"weight": weight.astype("float32")}
    params = "margin_inner_product_param { num_output: 4 }"
    top, share = tops_of("MarginInnerProduct", [x, LABELS], params, 2, blob)
    np.testing.assert_allclose(top, x @ (weight / np.sqrt((weight * weight).sum(1))[:, None]).T, rtol=1e-4, atol=1e-5)
    assert share == [1.0]


def test_wrong_bottoms_and_axes_are_refused() -> None:
    x, blobs = np.zeros((5, 3)), {"weight": np.ones((4, 3), "float32")}
    params = "margin_inner_product_param { num_output: 4 }"
    with pytest.raises(NetError, match="it takes 2 tops, not 1"):
        tops_of("MarginInnerProduct", [x, LABELS], params, 1, blobs)
    with pytest.raises(NetError, match="bottoms differ, 5x3 and 4; it needs a label for each item"):
        tops_of("MarginInnerProduct", [x, LABELS[:4]], params, 2, blobs)
    with pytest.raises(UnsupportedError, match="Caffe mixes up the items"):
        tops_of("CenterLoss", [x, LABELS], "center_loss_param { num_output: 4 axis: 0 }")
