"""Behaviour that our patches fix: each test fails with the published Caffe sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen.caffemodel.wire import encode_head
from tests.support.caffe_support import Array, caffe_or_skip, input_layer, make_net, numeric_gradient

pytestmark = pytest.mark.caffe


def layer(type_: str, bottoms: tuple[str, ...], tops: tuple[str, ...], param: str = "") -> str:
    blobs = " ".join([f'bottom: "{name}"' for name in bottoms] + [f'top: "{name}"' for name in tops])
    return f'layer {{ name: "it" type: "{type_}" {blobs} {param} }}\n'


def loss_net(folder: Path, type_: str, x: Array, labels: Array, param: str) -> Any:
    text = input_layer("x", x.shape) + input_layer("t", labels.shape)
    net = make_net(folder, "force_backward: true\n" + text + layer(type_, ("x", "t"), ("y",), param))
    net.blobs["x"].data[...], net.blobs["t"].data[...] = x, labels
    net.forward()
    return net


@pytest.mark.parametrize(("top_k", "expected"), [(1, 0.25), (2, 0.5), (3, 0.75)])
def test_accuracy_counts_ties_against_the_label(top_k: int, expected: float, tmp_path: Path) -> None:
    scores = np.array([[5, 1, 1, 0], [3, 3, 3, 0], [2, 2, 1, 0], [1, 1, 1, 1]], np.float32)
    labels = np.array([0, 2, 0, 0], np.float32)
    net = loss_net(tmp_path, "Accuracy", scores, labels, f"accuracy_param {{ top_k: {top_k} }}")
    assert net.blobs["y"].data == pytest.approx(expected)


def test_accuracy_by_class_over_pixels_with_an_ignored_label(tmp_path: Path) -> None:
    scores = np.zeros((1, 3, 1, 4), np.float32)
    scores[0, [0, 1, 1, 2], 0, range(4)] = 1
    labels = np.array([[[[0, 0, 1, 255]]]], np.float32)
    text = input_layer("x", scores.shape) + input_layer("t", labels.shape)
    net = make_net(
        tmp_path, text + layer("Accuracy", ("x", "t"), ("y", "each"), "accuracy_param { ignore_label: 255 }")
    )
    net.blobs["x"].data[...], net.blobs["t"].data[...] = scores, labels
    net.forward()
    assert net.blobs["y"].data == pytest.approx(2 / 3)
    np.testing.assert_allclose(net.blobs["each"].data, [0.5, 1, 0])


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    scores, labels = np.zeros((2, 3), np.float32), np.array([0, 3], np.float32)
    for type_ in ("Accuracy", "SoftmaxWithLoss"):
        with pytest.raises(caffe_or_skip().CheckError, match=rf"forward of layer 'it' \({type_}\)"):
            loss_net(tmp_path, type_, scores, labels, "")


def softmax(x: Array) -> Array:
    shifted = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def test_infogain_loss(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x, gains = rng.normal(size=(3, 4, 2, 1)).astype(np.float32), rng.uniform(size=(1, 1, 4, 4)).astype(np.float32)
    labels = np.array([[0, 3], [9, 2], [1, 1]], np.float32).reshape(3, 1, 2, 1)
    text = "".join(input_layer(n, a.shape) for n, a in (("x", x), ("t", labels), ("h", gains)))
    param = "loss_param { ignore_label: 9 normalization: VALID }"
    net = make_net(
        tmp_path,
        "force_backward: true\n"
        + text
        + layer(
            "InfogainLoss", ("x", "t", "h"), ("y",), param + " propagate_down: true" + 2 * " propagate_down: false"
        ),
    )
    for name, values in (("x", x), ("t", labels), ("h", gains)):
        net.blobs[name].data[...] = values

    def loss(v: Array) -> Array:
        logs = np.log(softmax(v))
        total = 0.0
        for n, _, i, j in np.ndindex(labels.shape):
            if labels[n, 0, i, j] != 9:
                total -= gains[0, 0, int(labels[n, 0, i, j])] @ logs[n, :, i, j]
        return np.array(total / 5)

    np.testing.assert_allclose(net.forward()["y"], loss(x.astype(np.float64)), rtol=1e-5)
    net.blobs["y"].diff[...] = 2
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, numeric_gradient(loss, x, np.array(2.0)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("param", "divisor"),
    [
        ("", 3),
        ("normalization: FULL", 12),
        ("normalization: VALID", 10),
        ("normalization: NONE", 1),
        ("normalize: true", 10),
    ],
)
def test_sigmoid_cross_entropy_loss(param: str, divisor: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    x = (40 * rng.normal(size=(3, 4))).astype(np.float32)
    targets = rng.integers(0, 2, (3, 4)).astype(np.float32)
    targets[0, 1] = targets[2, 2] = -1
    text = f"loss_param {{ ignore_label: -1 {param} }} propagate_down: true propagate_down: false"
    net = loss_net(tmp_path, "SigmoidCrossEntropyLoss", x, targets, text)

    def loss(v: Array) -> Array:
        each = np.logaddexp(0, v) - v * targets
        return np.array(each[targets >= 0].sum() / divisor)

    np.testing.assert_allclose(net.blobs["y"].data, loss(x.astype(np.float64)), rtol=1e-5)
    net.blobs["y"].diff[...] = 1
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, numeric_gradient(loss, x, np.array(1.0)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("type_", "param"),
    [("Swish", ""), ("Swish", "swish_param { beta: 1.7 }"), ("Clip", "clip_param { min: -0.5 max: 0.75 }")],
)
def test_swish_and_clip(type_: str, param: str, in_place: bool, tmp_path: Path) -> None:
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
    top = "x" if in_place and type_ == "Swish" else "y"
    net = make_net(tmp_path, "force_backward: true\n" + input_layer("x", x.shape) + layer(type_, ("x",), (top,), param))
    beta = 1.7 if "1.7" in param else 1.0

    def forward(v: Array) -> Array:
        return np.clip(v, -0.5, 0.75) if type_ == "Clip" else v / (1 + np.exp(-beta * v))

    net.blobs["x"].data[...] = x
    net.forward()
    np.testing.assert_allclose(net.blobs[top].data, forward(x.astype(np.float64)), rtol=1e-5, atol=1e-6)
    net.blobs[top].diff[...] = 1.5
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, numeric_gradient(forward, x, np.array(1.5)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "size"), [("", 4), ("round_mode: CEIL", 4), ("round_mode: FLOOR", 3), ("ceil_mode: false", 3)]
)
def test_pooling_applies_round_mode(mode: str, size: int, tmp_path: Path) -> None:
    param = f"pooling_param {{ kernel_size: 2 stride: 2 {mode} }}"
    net = make_net(tmp_path, input_layer("x", (1, 1, 7, 7)) + layer("Pooling", ("x",), ("y",), param))
    assert net.blobs["y"].data.shape == (1, 1, size, size)


@pytest.mark.parametrize("specs", ["", 3 * "param { lr_mult: 0 } ", 3 * "param { lr_mult: 1 decay_mult: 1 } "])
def test_the_solver_leaves_batch_norm_statistics_alone(specs: str, tmp_path: Path) -> None:
    caffe = caffe_or_skip()
    loss = (
        input_layer("t", (4, 3)) + 'layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }\n'
    )
    net_file, solver_file = tmp_path / "train.prototxt", tmp_path / "solver.prototxt"
    text = input_layer("x", (4, 3)) + layer(
        "BatchNorm", ("x",), ("y",), specs + "batch_norm_param { use_global_stats: true }"
    )
    net_file.write_text("force_backward: true\n" + text + loss, encoding="utf-8")
    solver_file.write_text(
        f'train_net: "{net_file}" base_lr: 1 lr_policy: "fixed" weight_decay: 0.5 snapshot_prefix: "{tmp_path}/s"',
        encoding="utf-8",
    )
    solver = caffe.SGDSolver(str(solver_file))
    for blob in solver.net.params["it"]:
        blob.data[...] = 3
    solver.step(2)
    assert all((blob.data == 3).all() for blob in solver.net.params["it"])


def test_eltwise_and_scale_refuse_shapes_that_differ(tmp_path: Path) -> None:
    inputs = input_layer("x", (2, 3, 4)) + input_layer("z", (2, 4, 4))
    with pytest.raises(caffe_or_skip().CheckError, match=r"bottoms differ, 2 3 4 .* and 2 4 4"):
        make_net(tmp_path, inputs + layer("Eltwise", ("x", "z"), ("y",)))
    with pytest.raises(caffe_or_skip().CheckError, match=r"'it' \(Scale\)"):
        make_net(tmp_path, inputs + layer("Scale", ("x", "z"), ("y",), "scale_param { axis: 0 }"))


def test_bilinear_filler_of_an_odd_kernel(tmp_path: Path) -> None:
    param = 'convolution_param { num_output: 1 kernel_size: 3 weight_filler { type: "bilinear" } bias_term: false }'
    net = make_net(tmp_path, input_layer("x", (1, 1, 4, 4)) + layer("Deconvolution", ("x",), ("y",), param))
    np.testing.assert_allclose(net.params["it"][0].data[0, 0], np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]))


@pytest.mark.parametrize("filler", ["xavier", "msra"])
def test_three_dimensional_convolution_can_be_filled(filler: str, tmp_path: Path) -> None:
    param = f'convolution_param {{ num_output: 50 kernel_size: 3 weight_filler {{ type: "{filler}" }} }}'
    net = make_net(tmp_path, input_layer("x", (1, 2, 4, 4, 4)) + layer("Convolution", ("x",), ("y",), param))
    variance = 2 / 54 if filler == "msra" else 1 / 54
    assert net.params["it"][0].data.var() == pytest.approx(variance, rel=0.15)


def test_weights_of_another_shape_are_refused_from_hdf5(tmp_path: Path) -> None:
    def inner_product(outputs: int) -> Any:
        param = f"inner_product_param {{ num_output: {outputs} }}"
        return make_net(tmp_path, input_layer("x", (1, 4)) + layer("InnerProduct", ("x",), ("y",), param))

    inner_product(3).save_hdf5(str(tmp_path / "w.h5"))
    with pytest.raises(caffe_or_skip().CheckError, match="shapes differ"):
        inner_product(2).load_hdf5(str(tmp_path / "w.h5"))


def test_solver_starts_from_its_weights_and_names_its_snapshots(tmp_path: Path) -> None:
    caffe = caffe_or_skip()
    param = 'inner_product_param { num_output: 2 weight_filler { type: "xavier" } }'
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }\n'
    text = input_layer("x", (1, 4)) + input_layer("t", (1, 2)) + layer("InnerProduct", ("x",), ("y",), param) + loss
    given = make_net(tmp_path, text)
    given.save(str(tmp_path / "given.caffemodel"))
    solver_file = tmp_path / "fine_tune.prototxt"
    solver_file.write_text(
        f'train_net: "{tmp_path}/net.prototxt" base_lr: 1 lr_policy: "fixed" weights: "{tmp_path}/given.caffemodel"',
        encoding="utf-8",
    )
    solver = caffe.get_solver(str(solver_file))
    np.testing.assert_array_equal(solver.net.params["it"][0].data, given.params["it"][0].data)
    solver.snapshot()
    assert (tmp_path / "fine_tune_iter_0.caffemodel").is_file()


def test_random_state_can_be_kept(tmp_path: Path) -> None:
    caffe = caffe_or_skip()
    net = make_net(tmp_path, input_layer("x", (1, 100)) + layer("Dropout", ("x",), ("y",)), train=True)
    net.blobs["x"].data[...] = 1
    state = caffe.random_state()
    first = net.forward()["y"].copy()
    second = net.forward()["y"].copy()
    caffe.set_random_state(state)
    np.testing.assert_array_equal(net.forward()["y"], first)
    assert not np.array_equal(first, second)


def test_views_outlive_their_net(tmp_path: Path) -> None:
    net = make_net(tmp_path, input_layer("x", (1, 3)))
    view = net.blobs["x"].data
    view[...] = 7
    net.blobs["x"].reshape(1000, 1000)
    assert net.blobs["x"].data.shape == (1000, 1000)
    del net
    assert (view == 7).all()


@pytest.mark.parametrize(
    ("write", "read", "name"), [("save", "copy_from", "w.caffemodel"), ("save_hdf5", "load_hdf5", "w.h5")]
)
def test_failed_write_leaves_the_old_file(write: str, read: str, name: str, tmp_path: Path) -> None:
    param = 'inner_product_param { num_output: 2 weight_filler { type: "xavier" } }'
    net = make_net(tmp_path, input_layer("x", (1, 4)) + layer("InnerProduct", ("x",), ("y",), param))
    file = str(tmp_path / name)
    getattr(net, write)(file)
    kept = net.params["it"][0].data.copy()
    net.params["it"][0].data[...] = 0
    Path(file + ".tmp").mkdir()  # where the new one would be written first
    with pytest.raises(caffe_or_skip().CheckError, match=name):
        getattr(net, write)(file)
    getattr(net, read)(file)
    np.testing.assert_array_equal(net.params["it"][0].data, kept)


def test_step_policy_without_stepsize_is_refused(tmp_path: Path) -> None:
    caffe = caffe_or_skip()
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }\n'
    text = input_layer("x", (1, 4)) + input_layer("t", (1, 2))
    text += layer("InnerProduct", ("x",), ("y",), "inner_product_param { num_output: 2 }") + loss
    make_net(tmp_path, text)
    solver_file = tmp_path / "solver.prototxt"
    solver_file.write_text(f'train_net: "{tmp_path}/net.prototxt" base_lr: 1 lr_policy: "step" gamma: 0.1')
    with pytest.raises(caffe.CheckError, match="needs a stepsize"):
        caffe.get_solver(str(solver_file)).step(1)


@pytest.mark.parametrize("sizes", ["input_shape { dim: 1 }", "input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 1"])
def test_every_input_needs_a_shape(sizes: str, tmp_path: Path) -> None:
    with pytest.raises(caffe_or_skip().CheckError, match="every input needs"):
        make_net(tmp_path, f'input: "a" input: "b" {sizes}')


def test_files_beyond_half_a_gigabyte_are_read(tmp_path: Path) -> None:
    net, size = make_net(tmp_path, 'input: "a" input_shape { dim: 1 }'), 540_000_000
    with (tmp_path / "large.caffemodel").open("wb") as file:
        file.write(encode_head(15_000, size))  # a field that nothing knows: holes, of which the disk keeps nothing
        file.truncate(file.tell() + size)
    net.copy_from(str(tmp_path / "large.caffemodel"))
