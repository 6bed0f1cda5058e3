"""Normalisation layers and fields of forks that the recorded Caffe lacks, compared with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError, UnsupportedError, WeightsError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.normalization.batch_norm import BatchNorm
from tests import golden
from tests.layers.test_laws import run_onnx

Array = np.ndarray[Any, Any]
FOUR = (2, 3, 4, 4)
MERGED = "batch_norm_param { scale_filler { value: 1 } bias_filler { value: 0 } }"


class LayerRun:
    """One layer with a random bottom, to run in PyTorch and in ONNX Runtime."""

    def __init__(self, type_: str, params: str, shape: Shape = FOUR, tops: int = 1) -> None:
        self.layer_type = layers.all_layer_types()[type_]
        self.example = Example("it", (shape,), params, tops)
        self.layer: Layer = golden.layer_of(self.layer_type, self.example)
        self.tops = self.layer_type.infer(self.layer, (shape,))
        self.bottom = np.random.default_rng(0).standard_normal(shape).astype("float32")
        self.bottoms = [self.bottom]
        self.blobs: dict[str, Array] = {}
        self.module: Any = self.layer_type.torch(self.layer, (shape,))

    def load(self, **blobs: Array) -> LayerRun:
        self.blobs = blobs
        self.layer_type.load(self.module, blobs)
        return self

    def torch(self, train: bool = False) -> Any:
        import torch

        self.module.train(train)
        return self.module(torch.from_numpy(self.bottom))

    def check(self, wanted: Array) -> None:
        """Assert that PyTorch and ONNX Runtime return `wanted`."""
        np.testing.assert_allclose(self.torch().detach().numpy(), wanted, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(run_onnx(self)[0], wanted, rtol=2e-5, atol=2e-5)  # type: ignore[arg-type]


def channels(seed: int, shape: Shape = (3,), low: float = 0.5) -> Array:
    return np.random.default_rng(seed).uniform(low, 2, shape).astype("float32")


def per_channel(array: Array) -> Array:
    return array.reshape(1, -1, 1, 1)


def batch(x: Array) -> tuple[Array, Array]:
    return x.mean((0, 2, 3)), x.var((0, 2, 3))


def test_factor_zero_makes_statistics_zero() -> None:
    run = LayerRun("BatchNorm", "").load(mean=channels(1), variance=channels(2), factor=np.zeros(1, "float32"))
    run.check(run.bottom / np.sqrt(1e-5, dtype="float32"))


@pytest.mark.parametrize("factor", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("params", [MERGED, "batch_norm_param { scale_bias: true }", ""])
def test_merged_batch_norm(params: str, factor: float) -> None:
    """The factor of merged layers is used if it is neither 0 nor 1; the prototxt may not show that they are merged."""
    mean, variance, scale, bias = (channels(seed) for seed in range(4))
    by = factor or 1
    blobs = {"scale": scale, "bias": bias, "mean": mean * by, "variance": variance * by}
    run = LayerRun("BatchNorm", params).load(**blobs, factor=np.array([factor], "float32"))
    run.check(
        (run.bottom - per_channel(mean)) / np.sqrt(per_channel(variance) + 1e-5) * per_channel(scale)
        + per_channel(bias)
    )
    for role, array in run.layer_type.dump(run.module, list(run.blobs)).items():
        np.testing.assert_allclose(array.ravel(), run.blobs[role], rtol=1e-6)


def test_merged_batch_norm_in_training() -> None:
    """As in NVCaffe: the first two batches replace the average, then it decays; the variance is the biased one."""
    run = LayerRun("BatchNorm", f"{MERGED[:-1]} moving_average_fraction: 0.75 }}")
    means, variances = np.zeros(3), np.zeros(3)
    for step in range(4):
        run.bottom = np.random.default_rng(step).normal(step, 1 + step, FOUR).astype("float32")
        run.torch(train=True)
        old = 0.75 if step > 1 else 0
        mean, variance = batch(run.bottom)
        means, variances = old * means + (1 - old) * mean, old * variances + (1 - old) * variance
    got = run.layer_type.dump(run.module, ["mean", "variance"])
    np.testing.assert_allclose(got["mean"], means, rtol=1e-5)
    np.testing.assert_allclose(got["variance"], variances, rtol=1e-5)


def test_batch_norm_over_three_batches() -> None:
    run = LayerRun("BatchNorm", "batch_norm_param { moving_average_fraction: 0.9 }")
    means, variances, factor = np.zeros(3), np.zeros(3), 0.0
    for step in range(3):
        run.bottom = np.random.default_rng(step).normal(step, 1 + step, FOUR).astype("float32")
        run.torch(train=True)
        mean, variance = batch(run.bottom)
        means, variances = 0.9 * means + mean, 0.9 * variances + variance * 32 / 31
        factor = 0.9 * factor + 1
    got = run.layer_type.dump(run.module, ["mean", "variance", "factor"])
    np.testing.assert_allclose(got["mean"], means, rtol=1e-5)
    np.testing.assert_allclose(got["variance"], variances, rtol=1e-5)
    np.testing.assert_allclose(got["factor"], [factor], rtol=1e-6)


def test_training_with_a_single_value_per_channel() -> None:
    run = LayerRun("BatchNorm", "", (1, 3, 1, 1))
    np.testing.assert_array_equal(run.torch(train=True).detach().numpy(), 0)
    np.testing.assert_array_equal(run.layer_type.dump(run.module, ["variance"])["variance"], 0)
    np.testing.assert_array_equal(run.layer_type.dump(run.module, ["mean"])["mean"], run.bottom.ravel())


def test_single_value_per_channel_gives_the_bias_and_no_gradient() -> None:
    import torch

    run = LayerRun("BN", "", (1, 3, 1, 1)).load(slope=channels(1), bias=channels(2))
    bottom = torch.from_numpy(run.bottom).requires_grad_()
    top = run.module.train()(bottom)
    top.sum().backward()
    np.testing.assert_array_equal(top.detach().numpy().ravel(), channels(2))
    np.testing.assert_array_equal(bottom.grad, 0)
    np.testing.assert_array_equal(run.module.weight.grad, 0)


@pytest.mark.parametrize(
    ("shapes", "roles"),
    [
        ([(3,), (3,), (1,)], "mean variance factor"),
        ([(1, 3, 1, 1)] * 4 + [(1, 1, 1, 1)], "scale bias mean variance factor"),
        ([(3,), (3,), (3,), (3,), (1,)], "scale bias mean variance factor"),
        ([(3,), (3,), (1,), (3,), (3,)], "mean variance factor scale bias"),
        ([(1, 3, 1, 1)] * 2 + [(1, 1, 1, 1)] + [(1, 3, 1, 1)] * 2, "scale bias factor mean variance"),
        ([(1,)] * 5, "mean variance factor scale bias"),
    ],
)
def test_order_of_stored_blobs(shapes: list[Shape], roles: str) -> None:
    assert BatchNorm().stored_roles(LayerRun("BatchNorm", "").layer, shapes) == tuple(roles.split())


def test_order_of_stored_blobs_of_one_channel_comes_from_the_prototxt() -> None:
    assert BatchNorm().stored_roles(LayerRun("BatchNorm", MERGED).layer, [(1,)] * 5)[0] == "scale"


@pytest.mark.parametrize("shapes", [[], [(3,)] * 2, [(3,)] * 5, [(3,)] * 3, [(3,)] * 4])
def test_stored_blobs_of_unknown_order_are_refused(shapes: list[Shape]) -> None:
    with pytest.raises(WeightsError, match=r"'it'.*the stored blobs are"):
        BatchNorm().stored_roles(LayerRun("BatchNorm", "").layer, shapes)


@pytest.mark.parametrize("params", ["", "bn_param { eps: 0.5 }"])
def test_bn_with_either_meaning_of_the_fourth_blob(params: str) -> None:
    slope, bias, mean, variance = (channels(seed) for seed in range(4))
    eps = 0.5 if params else 1e-5
    common = {"slope": slope, "bias": bias, "mean": mean}
    run = LayerRun("BN", params).load(**common, variance=variance)
    wanted = (run.bottom - per_channel(mean)) / np.sqrt(per_channel(variance) + eps) * per_channel(slope) + per_channel(
        bias
    )
    run.check(wanted)
    inverse = run.layer_type.dump(run.module, ["inverse_std"])["inverse_std"]
    np.testing.assert_allclose(inverse, (variance + eps) ** -0.5, rtol=1e-6)
    again = LayerRun("BN", params).load(**common, inverse_std=inverse)
    again.check(wanted)
    np.testing.assert_allclose(again.layer_type.dump(again.module, ["variance"])["variance"], variance, rtol=1e-5)


def test_bn_inverse_std_greater_than_its_eps_allows() -> None:
    """Weights trained with another eps: the fourth blob is used as it is stored."""
    inverse = np.array([0, 1000, 1e5], "float32")
    blobs = {"slope": channels(1), "bias": channels(2), "mean": channels(3), "inverse_std": inverse}
    run = LayerRun("BN", "bn_param { eps: 0.01 }").load(**blobs)
    got = run.torch().detach().numpy()
    wanted = (run.bottom - per_channel(blobs["mean"])) * per_channel(inverse * blobs["slope"]) + per_channel(
        blobs["bias"]
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=0.05)
    np.testing.assert_allclose(run.layer_type.dump(run.module, ["inverse_std"])["inverse_std"], inverse, rtol=1e-5)


def test_bn_negative_inverse_std_is_refused() -> None:
    with pytest.raises(WeightsError, match="has negative values"):
        LayerRun("BN", "").load(slope=channels(1), bias=channels(2), mean=channels(3), inverse_std=-channels(4))


@pytest.mark.parametrize("meaning", ["inverse_std", "variance"])
def test_bn_momentum_is_the_weight_of_the_old_value(meaning: str) -> None:
    run = LayerRun("BN", "bn_param { momentum: 0.7 eps: 0.1 }")
    means, fourths = channels(3).astype("float64"), channels(4).astype("float64")
    run.load(slope=channels(1), bias=channels(2), mean=channels(3), **{meaning: channels(4)})
    for step in range(3):
        run.bottom = np.random.default_rng(step).normal(step, 1 + step, FOUR).astype("float32")
        run.torch(train=True)
        mean, fourth = batch(run.bottom.astype("float64"))
        fourth = fourth if meaning == "variance" else (fourth + 0.1) ** -0.5
        means, fourths = 0.7 * means + 0.3 * mean, 0.7 * fourths + 0.3 * fourth
    got = run.layer_type.dump(run.module, ["mean", meaning])
    np.testing.assert_allclose(got["mean"], means, rtol=1e-5)
    np.testing.assert_allclose(got[meaning], fourths, rtol=1e-5)


def test_bn_starts_with_mean_zero_and_fourth_blob_one() -> None:
    run = LayerRun("BN", "bn_param { eps: 0.25 }")
    assert [float(v.ravel()[0]) for v in run.layer_type.dump(run.module, ["mean", "inverse_std"]).values()] == [0, 1]


def test_frozen_bn_parameters_have_no_gradient() -> None:
    run = LayerRun("BN", "bn_param { frozen: true }")
    assert not any(parameter.requires_grad for parameter in run.module.parameters())


def test_segnet_bn_in_inference_mode() -> None:
    scale, shift = channels(1), channels(2)
    run = LayerRun("BN", "bn_param { bn_mode: INFERENCE }").load(scale=per_channel(scale), shift=per_channel(shift))
    run.check(run.bottom * per_channel(scale) + per_channel(shift))
    np.testing.assert_allclose(run.torch(train=True).detach().numpy(), run.torch().detach().numpy())


def test_segnet_bn_in_learn_mode_normalises_by_the_batch_in_both_phases() -> None:
    scale, shift = channels(1), channels(2)
    run = LayerRun("BN", "bn_param { scale_filler { value: 1 } shift_filler { value: 0 } }").load(
        scale=scale, shift=shift
    )
    mean, variance = batch(run.bottom)
    run.check(
        (run.bottom - per_channel(mean)) / np.sqrt(per_channel(variance)) * per_channel(scale) + per_channel(shift)
    )


@pytest.mark.parametrize(
    ("type_", "params", "blobs"),
    [
        ("BatchNorm", "", {"mean": channels(1), "variance": channels(2), "factor": np.array([3], "float32")}),
        ("BN", "", {"slope": channels(1), "bias": channels(2), "mean": channels(3), "inverse_std": channels(4)}),
        ("BN", "bn_param { bn_mode: INFERENCE }", {"scale": channels(1), "shift": channels(2)}),
        ("Scale", "scale_param { bias_term: true }", {"scale": channels(1), "bias": channels(2)}),
        ("Scale", "", {"scale": channels(1)}),
        ("Bias", "", {"bias": channels(1)}),
    ],
)
def test_affine_matches_the_layer(type_: str, params: str, blobs: dict[str, Array]) -> None:
    run = LayerRun(type_, params).load(**blobs)
    found = run.layer_type.affine(run.layer, blobs)
    assert found is not None
    run.check(run.bottom * per_channel(found[0]) + per_channel(found[1]))


@pytest.mark.parametrize(
    ("type_", "params"),
    [
        ("BatchNorm", "batch_norm_param { use_global_stats: false }"),
        ("BN", "bn_param { bn_mode: LEARN }"),
        ("Scale", "scale_param { axis: 2 }"),
        ("Scale", "scale_param { num_axes: 2 }"),
        ("Bias", "bias_param { num_axes: 0 }"),
    ],
)
def test_affine_is_none_for_other_layers(type_: str, params: str) -> None:
    run = LayerRun(type_, params)
    blobs = {role: channels(1, spec.shape) for role, spec in run.layer_type.blobs(run.layer, (FOUR,)).items()}
    assert run.layer_type.affine(run.layer, blobs) is None


@pytest.mark.parametrize("kind", ["L1", "L2"])
@pytest.mark.parametrize("shape", [FOUR, (2, 5)])
def test_normalize_of_happynear(kind: str, shape: Shape) -> None:
    run = LayerRun("Normalize", f'normalize_param {{ normalize_type: "{kind}" }}', shape, tops=2)
    x = run.bottom.reshape(*shape, *[1] * (4 - len(shape)))
    sums = np.abs(x).sum(1, keepdims=True) if kind == "L1" else (x * x).sum(1, keepdims=True)
    norm = sums + 1e-6 if kind == "L1" else np.sqrt(sums + 1e-6)
    assert run.tops == (x.shape, norm.shape)
    for outputs in ([top.detach().numpy() for top in run.torch()], run_onnx(run)):  # type: ignore[arg-type]
        np.testing.assert_allclose(outputs[0], x / norm, rtol=1e-5)
        np.testing.assert_allclose(outputs[1], norm, rtol=1e-5)


def test_normalize_of_unknown_fork_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"'it' .Normalize.: SSD's Normalize has norm_param"):
        LayerRun("Normalize", "")


def test_relu6_field_of_synopsys() -> None:
    run = LayerRun("ReLU", "relu_param { relu6: true negative_slope: 0.1 }")
    run.bottom *= 8
    run.check(np.minimum(np.maximum(run.bottom, 0.1 * run.bottom), 6))


def test_hard_sigmoid_with_either_parameter_message() -> None:
    run = LayerRun("HardSigmoid", "hard_sigmoid_param { alpha: 0.4 }")
    run.check(np.clip(run.bottom * 0.4 + 0.5, 0, 1))


def test_dropout_with_scale_train_false_scales_in_test() -> None:
    run = LayerRun("Dropout", "dropout_param { dropout_ratio: 0.25 scale_train: false }")
    run.check(run.bottom * 0.75)
    trained = run.torch(train=True).numpy()
    kept = trained != 0
    np.testing.assert_allclose(trained[kept], run.bottom[kept], rtol=1e-6)
    assert 0 < kept.mean() < 1


def test_dropout_scales_in_training() -> None:
    run = LayerRun("Dropout", "dropout_param { dropout_ratio: 0.25 }")
    trained = run.torch(train=True).numpy()
    kept = trained != 0
    np.testing.assert_allclose(trained[kept], run.bottom[kept] / 0.75, rtol=1e-6)


@pytest.mark.parametrize(
    ("type_", "params", "shape", "problem"),
    [
        ("AbsVal", 'top: "bottom0"', FOUR, "top"),
        ("PReLU", "", (3,), "it needs two to four"),
        ("PReLU", "", (1, 2, 3, 4, 5), "it needs two to four"),
        ("Exp", "exp_param { base: 0 }", FOUR, "base is 0; it must be positive, or -1 for e"),
        ("Log", "log_param { base: 1 }", FOUR, "no logarithm of base 1"),
        ("Clip", "clip_param { min: 1 }", FOUR, "both min and max"),
        ("Dropout", "dropout_param { dropout_ratio: 1 }", FOUR, "dropout_ratio is 1; it must be at least 0"),
        ("Softmax", "softmax_param { axis: 4 }", FOUR, "axis 4 is not an axis of its bottom 2x3x4x4"),
        ("BatchNorm", "", (3,), "no channel axis"),
        ("BatchNorm", "batch_norm_param { disable_variance: true }", FOUR, "disable_variance is not understood"),
        ("BN", "", (3,), "no channel axis"),
        ("BN", "bn_param { bn_mode: LEARN }", (1, 2, 3, 4, 5), "more than four axes"),
        ("Scale", "scale_param { num_axes: 4 }", FOUR, "does not have 4 axes from axis 1 on"),
        ("Scale", "scale_param { num_axes: -2 }", FOUR, "num_axes is -2; it must be 0 or more"),
        ("Bias", "bias_param { axis: 5 }", FOUR, "axis 5 is not an axis"),
        ("MVN", "", (1, 2, 3, 4, 5), "more than four axes"),
        ("Normalize", "norm_param { }", (3,), "it needs two to four"),
        ("Normalize", 'normalize_param { normalize_type: "L3" }', FOUR, "neither L1 nor L2"),
        ("LayerNorm", "", (3,), "no axis after the batch axis"),
    ],
)
def test_wrong_parameters_are_refused(type_: str, params: str, shape: Shape, problem: str) -> None:
    with pytest.raises(NetError, match=f"'it' .{type_}.*{problem}"):
        LayerRun(type_, params, shape)


def test_absval_cannot_work_in_place() -> None:
    layer_type = layers.all_layer_types()["AbsVal"]
    layer = golden.layer_of(layer_type, Example("it", (FOUR,), in_place=True))
    with pytest.raises(NetError, match=r"'it' .AbsVal.: it cannot work in place"):
        layer_type.infer(layer, (FOUR,))


def test_scale_refuses_bottoms_that_do_not_match() -> None:
    layer_type = layers.all_layer_types()["Scale"]
    shapes = (FOUR, (4,))
    layer = golden.layer_of(layer_type, Example("it", shapes))
    with pytest.raises(NetError, match="bottoms differ, 2x3x4x4 from axis 1 on and 4"):
        layer_type.infer(layer, shapes)
