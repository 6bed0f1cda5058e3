"""Layer type BN: batch normalisation with its scale and bias in one layer, as in several forks and SegNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError, WeightsError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import BlobSpec, LayerType
from prototxt_gen.layers.example import Example, positive
from prototxt_gen.layers.normalization._batch_norm_shared import (
    BATCH,
    INVERSE_STD,
    PHASE,
    RUNNING,
    VARIANCE,
    onnx_by_batch_statistics,
    onnx_by_given_statistics,
)
from prototxt_gen.schema.caffe_proto import ENGINES, FillerParameter
from prototxt_gen.schema.message import Message, boolean, enum, float32, message

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

    Array = np.ndarray[Any, Any]

ONE = FillerParameter(value=1.0)
SEGNET_EPS = 1e-9
TENSORS = {"slope": "weight", "scale": "weight", "bias": "bias", "shift": "bias", "mean": "running_mean"}
"""Name of the module's tensor by role."""


class BNParameter(Message, field="bn_param", number=148):
    """The number in LayerParameter is buptwangfei's; other forks use others."""

    slope_filler = message(1, FillerParameter)
    bias_filler = message(2, FillerParameter)
    momentum = float32(3, 0.9)
    eps = float32(4, 1e-5)
    frozen = boolean(5)
    engine = enum(6, *ENGINES)
    icnet = boolean(10)
    """Field of Synopsys: true means this BN with a variance as fourth blob; otherwise the layer is SegNet's."""
    scale_filler = message(10_001, FillerParameter)
    """Field of alexgkendall/caffe-segnet, as are the next two. There they are 1, 2, 3, which other fields have here."""
    shift_filler = message(10_002, FillerParameter)
    bn_mode = enum(10_003, "LEARN", "INFERENCE")

    @property
    def segnet(self) -> bool:
        """Whether the layer is SegNet's BN, which has other blobs."""
        return any(self.has(name) for name in ("scale_filler", "shift_filler", "bn_mode"))


def moving_variance(blobs: Mapping[str, Array], eps: float) -> tuple[Array, float]:
    """Return the moving variance and the eps to add to it, from a fourth blob of either meaning.

    Their sum is exact, even for an inverse standard deviation that no variance gives with the layer's own eps. Raises
    WeightsError if an inverse standard deviation is negative.
    """
    import numpy as np

    if VARIANCE in blobs:
        return blobs[VARIANCE].reshape(-1), eps
    inverse = blobs[INVERSE_STD].reshape(-1).astype("float64")
    if (inverse < 0).any():
        raise WeightsError("the fourth blob of a BN, read as inverse standard deviations, has negative values")
    with np.errstate(divide="ignore", over="ignore"):  # 0 means an infinite variance
        sums = inverse**-2
        eps = min(eps, float(sums.min()))
        return (sums - eps).astype("float32"), eps


class BN(LayerType):
    """Normalise each channel, then multiply by a slope and add a bias.

    SegNet's INFERENCE mode multiplies and adds only.

    Source: buptwangfei/caffe, yjxiong/caffe, hszhao/PSPNet, happynear/caffe-windows src/caffe/layers/bn_layer.cpp
        BNLayer::LayerSetUp, Forward_cpu, Backward_cpu; alexgkendall/caffe-segnet's of the same name.
    Shape: the top has the bottom's shape, of at least two axes; SegNet's top has four axes.
    Blobs: slope, bias, moving mean, fourth statistic, 1×C×1×1 each (1×C in some forks). The fourth is 1 / sqrt(variance
        + eps), with role `inverse_std`, or the biased variance, with role `variance`; the role in the weights says
        which. SegNet: scale, shift.
    Differs: momentum is the weight of the old value, and the moving variance is the biased one; in PyTorch momentum is
        the weight of the new value, and the moving variance is unbiased. `frozen` normalises by the moving statistics
        in training too, and stops the gradients of slope and bias. In the TEST phase, the forks' backward pass uses
        moving statistics in the formula for batch statistics; here the statistics are constants. SegNet's LEARN mode
        normalises by the batch in both phases.
    """

    type = "BN"
    params = (BNParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        bottom = bottoms[0]
        if len(bottom) < 2:
            raise layer.error(f"its bottom {show(bottom)} has no channel axis")
        if not layer.get(BNParameter).segnet:
            return [bottom]
        if len(bottom) > 4:
            raise layer.error(f"its bottom {show(bottom)} has more than four axes")
        return [bottom + (1,) * (4 - len(bottom))]

    def assumed(self, layer: Layer) -> str:
        p = layer.get(BNParameter)
        if not p.segnet or p.bn_mode != "LEARN":
            return ""
        return (
            "bn_mode LEARN, so the TEST phase normalises by the mean and variance of the batch, as in SegNet's Caffe: "
            "what an image gives depends on the other images of its batch; a deploy net normally has bn_mode: INFERENCE"
        )

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p, shape = layer.get(BNParameter), (1, bottoms[0][1], 1, 1)
        if p.segnet:
            return {"scale": BlobSpec(shape, p.scale_filler), "shift": BlobSpec(shape, p.shift_filler)}
        return {
            "slope": BlobSpec(shape, p.slope_filler),
            "bias": BlobSpec(shape, p.bias_filler),
            "mean": BlobSpec(shape, statistic=True),
            INVERSE_STD: BlobSpec(shape, ONE, statistic=True),
        }

    def statistics(self, layer: Layer) -> str:
        """Return which statistics normalise: PHASE, RUNNING or BATCH."""
        p = layer.get(BNParameter)
        if p.segnet:
            return RUNNING if p.bn_mode == "INFERENCE" else BATCH
        return RUNNING if p.frozen else PHASE

    def check_axes(self, layer: Layer, bottom: Shape) -> None:
        """Raise UnsupportedError if the layer is SegNet's and the bottom does not have four axes."""
        if layer.get(BNParameter).segnet and len(bottom) != 4:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): SegNet's BN is supported for four axes only; "
                f"the bottom is {show(bottom)}"
            )

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from prototxt_gen.layers.normalization._batch_norm_module import MergedNorm, as_torch_class

        self.check_axes(layer, bottoms[0])
        p = layer.get(BNParameter)
        eps = SEGNET_EPS if p.segnet else p.eps
        norm: Any = as_torch_class(MergedNorm, len(bottoms[0]))
        module: nn.Module = norm(bottoms[0][1], eps, p.momentum, self.statistics(layer))
        return module.requires_grad_(not p.frozen)

    def load(self, module: nn.Module, blobs: Mapping[str, Array]) -> None:
        """Copy the blobs. The role `variance` or `inverse_std` sets what the fourth blob means from then on."""
        from prototxt_gen.layers.normalization._batch_norm_module import put

        m: Any = module
        for role, tensor in TENSORS.items():
            if role in blobs:
                put(getattr(m, tensor), blobs[role])
        for statistic in (INVERSE_STD, VARIANCE):
            if statistic in blobs:
                m.statistic = statistic
                variance, m.eps = moving_variance(blobs, m.batch_eps)
                put(m.running_var, variance)

    def dump(self, module: nn.Module, roles: Sequence[str]) -> dict[str, Array]:
        """Return the blobs of these roles: the inverse of `load`. The fourth blob is available in both meanings."""
        m: Any = module
        sums = m.running_var.double() + m.eps
        fourth = {INVERSE_STD: sums.rsqrt(), VARIANCE: sums - m.batch_eps}
        tensors = {role: fourth[role] if role in fourth else getattr(m, TENSORS[role]) for role in roles}
        return {role: tensor.detach().cpu().float().numpy() for role, tensor in tensors.items()}

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, Array]
    ) -> str | Sequence[str]:
        p, arrays = layer.get(BNParameter), [array.reshape(-1) for array in blobs.values()]
        self.check_axes(layer, g.shape(bottoms[0]))
        if not p.segnet:
            variance, eps = moving_variance(blobs, p.eps)
            return onnx_by_given_statistics(g, bottoms[0], eps, blobs["slope"], blobs["bias"], blobs["mean"], variance)
        if p.bn_mode == "LEARN":
            return onnx_by_batch_statistics(g, bottoms[0], SEGNET_EPS, arrays)
        scaled = g.op("Mul", bottoms[0], blobs["scale"].reshape(-1, 1, 1))
        return g.op("Add", scaled, blobs["shift"].reshape(-1, 1, 1))

    def affine(self, layer: Layer, blobs: Mapping[str, Array]) -> tuple[Array, Array] | None:
        import numpy as np

        p, flat = layer.get(BNParameter), {role: blob.reshape(-1) for role, blob in blobs.items()}
        if p.segnet:
            return (flat["scale"], flat["shift"]) if p.bn_mode == "INFERENCE" else None
        variance, eps = moving_variance(blobs, p.eps)
        scale = flat["slope"] / np.sqrt(variance.astype("float64") + eps)
        return scale.astype("float32"), (flat["bias"] - flat["mean"] * scale).astype("float32")

    examples = (
        Example("plain", ((2, 3, 4, 4),), blobs=positive),
        Example("in place", ((2, 3, 4, 4),), "bn_param { frozen: true }", blobs=positive, in_place=True),
        Example("two axes", ((4, 3),), blobs=positive),
        Example("three axes, large eps", ((2, 3, 5),), "bn_param { eps: 3 }", blobs=positive),
        Example("five axes", ((2, 3, 2, 3, 2),), blobs=positive),
        Example("frozen in training", ((2, 3, 4, 4),), "bn_param { frozen: true }", phase="TRAIN", blobs=positive),
        Example("training", ((3, 2, 4, 4),), phase="TRAIN", blobs=positive),
        Example("training, two axes", ((5, 3),), "bn_param { momentum: 0.6 eps: 0.01 }", phase="TRAIN", blobs=positive),
        Example("training, in place", ((2, 3, 4, 4),), phase="TRAIN", blobs=positive, in_place=True),
        Example("training, a single value", ((1, 3, 1, 1),), phase="TRAIN", blobs=positive, gradients=False),
    )
