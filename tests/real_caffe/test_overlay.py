"""BN and Interp in real Caffe compared with NumPy: forward, numeric gradients, statistics, errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.caffe_support import Array, caffe_or_skip, input_layer, make_net, numeric_gradient

pytestmark = pytest.mark.caffe

EPS, MOMENTUM = 1e-3, 0.7
SHAPES = [(2, 3, 5, 7), (1, 4, 1, 3), (3, 1, 2, 2), (4, 3), (2, 2, 3, 1, 2)]


@dataclass
class Statistics:
    """Mean and inverse standard deviation of each channel."""

    mean: Array
    inverse_std: Array


def per_channel(values: Array, axes: int) -> Array:
    return values.reshape((1, -1) + (1,) * (axes - 2))


def batch_statistics(x: Array) -> Statistics:
    others = (0, *range(2, x.ndim))
    return Statistics(x.mean(others), 1 / np.sqrt(x.var(others) + EPS))


def normalise(x: Array, slope: Array, bias: Array, moving: Statistics | None) -> Array:
    """Return BN's top, normalised by the given statistics or else by those of the batch."""
    used = moving or batch_statistics(x)
    normal = (x - per_channel(used.mean, x.ndim)) * per_channel(used.inverse_std, x.ndim)
    return normal * per_channel(slope, x.ndim) + per_channel(bias, x.ndim)


def bn_text(shape: tuple[int, ...], frozen: bool = False, in_place: bool = False, specs: str = "") -> str:
    top = "x" if in_place else "y"
    param = f"momentum: {MOMENTUM} eps: {EPS} frozen: {str(frozen).lower()}"
    return (
        "force_backward: true\n"
        + input_layer("x", shape)
        + f'layer {{ name: "bn" type: "BN" bottom: "x" top: "{top}" {specs} bn_param {{ {param} }} }}\n'
    )


def filled(net: Any, rng: np.random.Generator) -> list[Array]:
    """Fill BN's four blobs with random numbers and return copies, one number per channel."""
    for index, blob in enumerate(net.params["bn"]):
        low, high = (0.5, 1.5) if index in (0, 3) else (-1, 1)
        blob.data[...] = rng.uniform(low, high, blob.data.shape)
    return [blob.data.ravel().astype(np.float64) for blob in net.params["bn"]]


@pytest.mark.parametrize("in_place", [False, True], ids=["apart", "in place"])
@pytest.mark.parametrize("frozen", [False, True], ids=["learning", "frozen"])
@pytest.mark.parametrize("train", [False, True], ids=["TEST", "TRAIN"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bn(shape: tuple[int, ...], train: bool, frozen: bool, in_place: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    net = make_net(tmp_path, bn_text(shape, frozen, in_place), train)
    slope, bias, mean, inverse_std = filled(net, rng)
    x = rng.normal(1, 2, shape).astype(np.float32)
    moving = None if train and not frozen else Statistics(mean, inverse_std)
    top = net.blobs["x" if in_place else "y"]

    net.blobs["x"].data[...] = x
    net.forward()
    np.testing.assert_allclose(top.data, normalise(x.astype(np.float64), slope, bias, moving), rtol=2e-4, atol=2e-5)

    moved = batch_statistics(x.astype(np.float64))
    share = 1 - MOMENTUM if moving is None else 0
    after = [blob.data.ravel() for blob in net.params["bn"]]
    np.testing.assert_allclose(after[2], (1 - share) * mean + share * moved.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after[3], (1 - share) * inverse_std + share * moved.inverse_std, rtol=1e-5)

    diff = rng.normal(size=shape).astype(np.float32)
    for times in (1, 2):  # gradients of parameters add up, those of bottoms do not
        top.diff[...] = diff
        net.backward()
        expected = numeric_gradient(lambda v: normalise(v, slope, bias, moving), x, diff)
        np.testing.assert_allclose(net.blobs["x"].diff, expected, rtol=2e-3, atol=2e-4)
        for blob, wanted in zip(
            net.params["bn"],
            [
                numeric_gradient(lambda v: normalise(x.astype(np.float64), v, bias, moving), slope, diff),
                numeric_gradient(lambda v: normalise(x.astype(np.float64), slope, v, moving), bias, diff),
                np.zeros_like(mean),
                np.zeros_like(mean),
            ],
            strict=True,
        ):
            np.testing.assert_allclose(blob.diff.ravel(), 0 if frozen else times * wanted, rtol=2e-3, atol=2e-4)


def test_bn_starts_with_its_fillers_values(tmp_path: Path) -> None:
    fillers = 'slope_filler { type: "constant" value: 2 } bias_filler { type: "constant" value: -1 }'
    text = bn_text((2, 3, 4, 4)).replace("bn_param {", f"bn_param {{ {fillers}")
    blobs = make_net(tmp_path, text).params["bn"]
    assert [blob.data.shape for blob in blobs] == [(1, 3, 1, 1)] * 4
    assert [set(blob.data.ravel()) for blob in blobs] == [{2.0}, {-1.0}, {0.0}, {1.0}]


def test_bn_follows_a_reshape_of_its_input(tmp_path: Path) -> None:
    net = make_net(tmp_path, bn_text((2, 3, 4, 4)), train=True)
    slope, bias, *_ = filled(net, np.random.default_rng(1))
    x = np.random.default_rng(2).normal(size=(5, 3, 2, 7)).astype(np.float32)
    net.blobs["x"].reshape(*x.shape)
    net.reshape()
    net.blobs["x"].data[...] = x
    expected = normalise(x.astype(np.float64), slope, bias, None)
    np.testing.assert_allclose(net.forward()["y"], expected, rtol=1e-4, atol=1e-5)


def test_bn_cannot_change_its_channels(tmp_path: Path) -> None:
    net = make_net(tmp_path, bn_text((2, 3, 4, 4)))
    net.blobs["x"].reshape(2, 5, 4, 4)
    with pytest.raises(caffe_or_skip().CheckError, match=r"reshape of layer 'bn' \(BN\).*number of channels"):
        net.reshape()


SOLVER = """
train_net: "{net}" base_lr: 0.1 lr_policy: "fixed" weight_decay: 0.5 snapshot_prefix: "{folder}/s" max_iter: 9
"""
LOSS = """layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""
WRITTEN = "param { lr_mult: 1 } param { lr_mult: 1 } param { lr_mult: 1 } param { lr_mult: 1 }"


@pytest.mark.parametrize(
    ("frozen", "specs", "changed"),
    [(False, "", (0, 1)), (True, "", ()), (True, WRITTEN, ()), (False, WRITTEN, (0, 1, 2, 3))],
    ids=["statistics are not decayed", "frozen", "frozen whatever is written", "as written"],
)
def test_solver_changes_only_learned_bn_blobs(
    frozen: bool, specs: str, changed: tuple[int, ...], tmp_path: Path
) -> None:
    caffe, rng = caffe_or_skip(), np.random.default_rng(3)
    net_file, solver_file = tmp_path / "train.prototxt", tmp_path / "solver.prototxt"
    net_file.write_text(bn_text((4, 3), frozen, specs=specs) + LOSS, encoding="utf-8")
    solver_file.write_text(SOLVER.format(net=net_file, folder=tmp_path), encoding="utf-8")
    solver = caffe.SGDSolver(str(solver_file))
    before = filled(solver.net, rng)
    x = rng.normal(size=(4, 3)).astype(np.float32)
    solver.net.blobs["x"].data[...] = x
    solver.step(1)
    share = 0 if frozen else 1 - MOMENTUM
    moved = batch_statistics(x.astype(np.float64))
    before[2] = (1 - share) * before[2] + share * moved.mean
    before[3] = (1 - share) * before[3] + share * moved.inverse_std
    after = [blob.data.ravel() for blob in solver.net.params["bn"]]
    found = [i for i in range(4) if not np.allclose(after[i], before[i], rtol=1e-5, atol=1e-6)]
    assert tuple(found) == changed


def test_wire_numbers_and_shapes_are_the_residual_attention_networks(tmp_path: Path) -> None:
    net = make_net(tmp_path, bn_text((2, 3, 4, 4)))
    net.save(str(tmp_path / "net.caffemodel"))
    from caffe.proto import caffe_pb2

    saved = caffe_pb2.NetParameter.FromString((tmp_path / "net.caffemodel").read_bytes())
    (layer,) = [layer for layer in saved.layer if layer.type == "BN"]
    assert [list(blob.shape.dim) for blob in layer.blobs] == [[1, 3, 1, 1]] * 4
    assert layer.bn_param.momentum == pytest.approx(MOMENTUM)
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    assert (fields["interp_param"].number, fields["bn_param"].number) == (147, 148)
    numbers = {f.name: f.number for f in caffe_pb2.InterpParameter.DESCRIPTOR.fields}
    assert numbers == {"height": 1, "width": 2, "zoom_factor": 3, "shrink_factor": 4, "pad_beg": 5, "pad_end": 6}


def interpolation(size: int, out: int, begin: int = 0, end: int = 0) -> Array:
    """Return the out × size matrix of linear interpolation along one axis, aligned at corners and cropped."""
    kept = size - begin - end
    matrix = np.zeros((out, size))
    for dest in range(out):
        source = float(np.float32(kept - 1) / np.float32(out - 1) * np.float32(dest)) if out > 1 else 0.0
        low = min(int(source), kept - 1)
        high = min(low + 1, kept - 1)
        matrix[dest, begin + low] += 1 - (source - low)
        matrix[dest, begin + high] += source - low
    return matrix


# bottom, interp_param, height and width of a second bottom, height and width of the top, cropped (begin, end)
INTERP = [
    ((2, 3, 5, 7), "zoom_factor: 2", None, (9, 13), (0, 0)),
    ((1, 2, 1, 4), "zoom_factor: 3", None, (1, 10), (0, 0)),
    ((1, 1, 4, 3), "zoom_factor: 1", None, (4, 3), (0, 0)),
    ((2, 2, 7, 10), "shrink_factor: 2", None, (4, 5), (0, 0)),
    ((1, 2, 8, 3), "shrink_factor: 3", None, (3, 1), (0, 0)),
    ((2, 1, 5, 7), "height: 6 width: 11", None, (6, 11), (0, 0)),
    ((1, 1, 5, 4), "height: 1 width: 1", None, (1, 1), (0, 0)),
    ((1, 2, 1, 1), "height: 3 width: 5", None, (3, 5), (0, 0)),
    ((1, 1, 9, 9), "height: 4 width: 6 pad_beg: -2 pad_end: -1", None, (4, 6), (2, 1)),
    ((2, 2, 6, 5), "zoom_factor: 2 pad_beg: -1 pad_end: -2", None, (5, 3), (1, 2)),
    ((1, 2, 7, 7), "shrink_factor: 2 pad_end: -1", None, (3, 3), (0, 1)),
    ((1, 2, 4, 4), "height: 2 width: 2 pad_beg: -1 pad_end: -1", None, (2, 2), (1, 1)),
    ((2, 2, 5, 3), "", (8, 8), (8, 8), (0, 0)),
    ((1, 2, 28, 14), "", (14, 28), (14, 28), (0, 0)),
    ((1, 1, 6, 6), "pad_beg: -1", (3, 9), (3, 9), (1, 0)),
]


def interp_text(shape: tuple[int, ...], param: str, second: tuple[int, int] | None) -> str:
    inputs = input_layer("x", shape) + (input_layer("like", (1, 1, *second)) if second else "")
    bottoms = 'bottom: "x"' + (' bottom: "like"' if second else "")
    return (
        f'force_backward: true\n{inputs}layer {{ name: "up" type: "Interp" {bottoms} top: "y" '
        f"interp_param {{ {param} }} }}\n"
    )


@pytest.mark.parametrize(("shape", "param", "second", "size", "crop"), INTERP, ids=str)
def test_interp(
    shape: tuple[int, int, int, int],
    param: str,
    second: tuple[int, int] | None,
    size: tuple[int, int],
    crop: tuple[int, int],
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(5)
    net = make_net(tmp_path, interp_text(shape, param, second))
    rows, columns = interpolation(shape[2], size[0], *crop), interpolation(shape[3], size[1], *crop)

    def forward(values: Array) -> Array:
        return np.asarray(rows @ values @ columns.T)

    x = rng.normal(size=shape).astype(np.float32)
    net.blobs["x"].data[...] = x
    assert net.forward()["y"].shape == (*shape[:2], *size)
    np.testing.assert_allclose(net.blobs["y"].data, forward(x.astype(np.float64)), rtol=1e-5, atol=1e-6)

    diff = rng.normal(size=net.blobs["y"].data.shape).astype(np.float32)
    for _ in range(2):  # what is left in a bottom's diff from before must not matter
        net.blobs["y"].diff[...] = diff
        net.backward()
        np.testing.assert_allclose(
            net.blobs["x"].diff, numeric_gradient(forward, x, diff, step=1e-3), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("param", "second", "why"),
    [
        ("", None, "0 are given"),
        ("height: 3", None, "0 are given"),
        ("zoom_factor: 2 shrink_factor: 2", None, "2 are given"),
        ("zoom_factor: 2", (4, 4), "2 are given"),
        ("zoom_factor: 2 pad_beg: 1", None, "can crop but not pad"),
        ("zoom_factor: 2 pad_end: 1", None, "can crop but not pad"),
        ("zoom_factor: 0", None, "must be positive"),
        ("shrink_factor: 0", None, "must be positive"),
        ("zoom_factor: 2 pad_beg: -3 pad_end: -2", None, "leaves nothing"),
        ("height: 0 width: 4", None, "not positive"),
    ],
    ids=str,
)
def test_interp_refuses(param: str, second: tuple[int, int] | None, why: str, tmp_path: Path) -> None:
    with pytest.raises(caffe_or_skip().CheckError, match=rf"layer 'up' \(Interp\).*{why}"):
        make_net(tmp_path, interp_text((1, 1, 5, 5), param, second))


def test_interp_gives_its_size_bottom_no_gradient(tmp_path: Path) -> None:
    text = interp_text((1, 1, 2, 2), "", (3, 3))
    doubled = 'layer { name: "twice" type: "Power" bottom: "like" top: "like2" power_param { scale: 2 } }\n'
    text = text.replace('layer { name: "up"', doubled + 'layer { name: "up"').replace(
        '"x" bottom: "like"', '"x" bottom: "like2"'
    )
    net = make_net(tmp_path, text)
    net.blobs["like2"].diff[...] = 9
    net.forward()
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert not net.blobs["like"].diff.any()
