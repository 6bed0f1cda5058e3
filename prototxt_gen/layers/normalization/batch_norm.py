"""Layer type BatchNorm: with three blobs as in BVLC Caffe, or with five in forks that merge it with Scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import WeightsError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import BlobSpec, LayerType, show_all
from prototxt_gen.layers.example import Example, positive
from prototxt_gen.layers.normalization._batch_norm_shared import (
    BATCH,
    PHASE,
    RUNNING,
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

STATISTICS = ("mean", "variance", "factor")
XILINX = ("scale", "bias", *STATISTICS)
NVCAFFE = (*STATISTICS, "scale", "bias")
NVCAFFE_14 = ("scale", "bias", "factor", "mean", "variance")
"""Orders of merged blobs: of Xilinx and NVCaffe 0.15; of NVCaffe from 0.16 on and Intel; of NVCaffe 0.14."""
ONE = FillerParameter(value=1.0)
BATCH_STATISTICS_IN_TEST = (
    "use_global_stats: false, so the TEST phase normalises by the mean and variance of the batch, as in Caffe: what an "
    "image gives depends on the other images of its batch, and the learned statistics are not used; a deploy net "
    "normally has use_global_stats: true, or no use_global_stats"
)
NVCAFFE_EPS = 1e-5
"""Smallest eps of NVCaffe 0.16, cuDNN's minimum."""


class BatchNormParameter(Message, field="batch_norm_param", number=139):
    use_global_stats = boolean(1)
    moving_average_fraction = float32(2, 0.999)
    eps = float32(3, 1e-5)
    add_eps_before_sqrt = boolean(4, True)
    """Field of Synopsys: false adds eps to the standard deviation instead of the variance."""
    scale_filler = message(5, FillerParameter)
    """Field of NVCaffe and Xilinx, as are the next ones: the layer has a scale and a bias of its own."""
    bias_filler = message(6, FillerParameter)
    scale_bias = boolean(7)
    """Field of NVCaffe from 0.16 on."""
    engine = enum(15, *ENGINES)

    @property
    def merged(self) -> bool:
        """Whether the layer has a scale and a bias of its own (forks)."""
        return self.scale_bias or self.has("scale_filler") or self.has("bias_filler")


def divided_by_factor(blobs: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return mean and variance divided by the factor.

    If the factor is 0, there are no statistics yet, and both are 0. Merged layers of NVCaffe and Xilinx do not use the
    factor and store 0 or 1; Intel's use it as BVLC does.
    """
    factor = float(blobs["factor"].reshape(-1)[0])
    inverse = 1 / factor if factor else float("scale" in blobs)
    return blobs["mean"].reshape(-1) * inverse, blobs["variance"].reshape(-1) * inverse


class BatchNorm(LayerType):
    """Normalise each channel: subtract its mean and divide by √(variance + eps); merged forms also scale and shift.

    Source: src/caffe/layers/batch_norm_layer.cpp BatchNormLayer::LayerSetUp, Forward_cpu; NVIDIA/caffe's of the same
        name, branches 0.14 to 0.17; intel/caffe's mkldnn_batch_norm_layer.cpp; synopsys-caffe's for
        add_eps_before_sqrt.
    Shape: the top has the bottom's shape, of at least two axes.
    Blobs: mean C, variance C, factor 1. Merged forms: scale, bias, mean, variance 1×C×1×1 each and factor 1×1×1×1
        (Xilinx, NVCaffe 0.15); or, with scale_bias, BVLC's three blobs, then scale C, bias C. `stored_roles` finds the
        order in a file.
    Differs: the stored mean and variance are sums that must be divided by `factor`; PyTorch stores averages. If
        use_global_stats is false, the TEST phase normalises by the batch too. Caffe then updates the moving statistics
        in every TEST pass; here only the tests of a training run do. Merged layers train as in NVCaffe: they average
        the biased variance, with moving_average_fraction for the old value.
    """

    type = "BatchNorm"
    params = (BatchNormParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) < 2:
            raise layer.error(f"its bottom {show(bottoms[0])} has no channel axis")
        return [bottoms[0]]

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p, c = layer.get(BatchNormParameter), bottoms[0][1]
        shape, single = ((1, c, 1, 1), (1, 1, 1, 1)) if p.merged and not p.scale_bias else ((c,), (1,))
        statistics = {"mean": BlobSpec(shape, statistic=True), "variance": BlobSpec(shape, statistic=True)}
        factor = {"factor": BlobSpec(single, statistic=True)}
        if not p.merged:
            return statistics | factor
        scale = BlobSpec(shape, p.scale_filler if p.has("scale_filler") else ONE)
        learned = {"scale": scale, "bias": BlobSpec(shape, p.bias_filler)}
        return statistics | factor | learned if p.scale_bias else learned | statistics | factor

    def stored_roles(self, layer: Layer, shapes: Sequence[Shape]) -> tuple[str, ...]:
        """Return the roles of a file's blobs in its order, found from their shapes.

        Raises WeightsError if the shapes match no known order. The prototxt is not enough to decide whether the layer
        is merged: those of Intel and NVCaffe may not show it.
        """
        single = tuple(index for index, shape in enumerate(shapes) if math.prod(shape) == 1)
        if len(shapes) == 3 and 2 in single:
            return STATISTICS
        if len(shapes) == 5 and single == (0, 1, 2, 3, 4):  # with one channel, only the prototxt shows the order
            p = layer.get(BatchNormParameter)
            return XILINX if p.merged and not p.scale_bias else NVCAFFE
        if len(shapes) == 5 and single in ((2,), (4,)):
            return XILINX if single == (4,) else NVCAFFE if len(shapes[2]) == 1 else NVCAFFE_14
        raise WeightsError(
            f"layer {layer.name!r} ({layer.type}): the stored blobs are {show_all(shapes)}; it needs mean, variance "
            "and factor, or these with scale and bias"
        )

    def statistics(self, layer: Layer) -> str:
        """Return which statistics normalise: PHASE, RUNNING or BATCH."""
        p = layer.get(BatchNormParameter)
        if p.scale_bias or not p.has("use_global_stats"):  # NVCaffe 0.17 decides by the phase only
            return PHASE
        return RUNNING if p.use_global_stats else BATCH

    def assumed(self, layer: Layer) -> str:
        return BATCH_STATISTICS_IN_TEST if self.statistics(layer) == BATCH else ""

    def eps(self, layer: Layer) -> float:
        """Return eps, at least NVCaffe's minimum if the layer is NVCaffe's."""
        p = layer.get(BatchNormParameter)
        return max(p.eps, NVCAFFE_EPS) if p.scale_bias else p.eps

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from prototxt_gen.layers.normalization._batch_norm_module import AddedAfterNorm, AveragingNorm, as_torch_class

        p = layer.get(BatchNormParameter)
        norm: Any = as_torch_class(AveragingNorm, len(bottoms[0])) if p.add_eps_before_sqrt else AddedAfterNorm
        module: nn.Module = norm(
            bottoms[0][1], self.eps(layer), p.merged, p.moving_average_fraction, self.statistics(layer)
        )
        return module

    def load(self, module: nn.Module, blobs: Mapping[str, Array]) -> None:
        """Copy mean and variance, divided by the factor; with a scale and a bias the module becomes affine."""
        import torch
        from torch.nn import Parameter

        from prototxt_gen.layers.normalization._batch_norm_module import put

        m: Any = module
        put(m.factor, blobs["factor"])
        m.merged = "scale" in blobs and float(m.factor) in (0.0, 1.0)  # otherwise Intel's, which averages as BVLC
        mean, variance = divided_by_factor(blobs)
        put(m.running_mean, mean)
        put(m.running_var, variance)
        if not m.merged:
            m.put_sums(*(torch.from_numpy(blobs[role].reshape(-1).copy()) for role in ("mean", "variance")))
        if "scale" in blobs and not m.affine:
            m.affine = True
            m.weight, m.bias = Parameter(m.running_mean.clone()), Parameter(m.running_mean.clone())
        for target, role in ((m.weight, "scale"), (m.bias, "bias")):
            if role in blobs:
                put(target, blobs[role])

    def dump(self, module: nn.Module, roles: Sequence[str]) -> dict[str, Array]:
        m: Any = module
        mean, variance = m.stored()
        tensors = {"mean": mean, "variance": variance, "factor": m.factor, "scale": m.weight, "bias": m.bias}
        return {role: tensors[role].detach().cpu().float().numpy() for role in roles}

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, Array]
    ) -> str | Sequence[str]:
        import numpy as np

        affine = [blobs[role].reshape(-1) for role in ("scale", "bias") if role in blobs]
        before, eps = layer.get(BatchNormParameter).add_eps_before_sqrt, self.eps(layer)
        if self.statistics(layer) == BATCH:
            return onnx_by_batch_statistics(g, bottoms[0], eps, affine, before)
        mean, variance = divided_by_factor(blobs)
        if not before:
            variance, eps = np.square(np.sqrt(variance.astype("float64")) + eps), 0.0
        scale, bias = affine or (np.ones_like(mean), np.zeros_like(mean))
        return onnx_by_given_statistics(g, bottoms[0], eps, scale, bias, mean, variance)

    def affine(self, layer: Layer, blobs: Mapping[str, Array]) -> tuple[Array, Array] | None:
        import numpy as np

        if self.statistics(layer) == BATCH:
            return None
        mean, variance = divided_by_factor(blobs)
        scale, bias = (blobs[role].reshape(-1) if role in blobs else None for role in ("scale", "bias"))
        exact, eps = variance.astype("float64"), self.eps(layer)
        before = layer.get(BatchNormParameter).add_eps_before_sqrt
        total = (1.0 if scale is None else scale) / (np.sqrt(exact + eps) if before else np.sqrt(exact) + eps)
        return total.astype("float32"), ((0.0 if bias is None else bias) - mean * total).astype("float32")

    examples = (
        Example("plain", ((2, 3, 4, 4),), blobs=positive),
        Example("eps, in place", ((2, 3, 4, 4),), "batch_norm_param { eps: 0.01 }", blobs=positive, in_place=True),
        Example("two axes", ((4, 3),), blobs=positive),
        Example("three axes", ((2, 3, 5),), blobs=positive),
        Example("five axes", ((2, 3, 2, 3, 2),), blobs=positive),
        Example("no statistics yet", ((2, 3, 4),), blobs=lambda rng, shape: 0 * positive(rng, shape)),
        Example(
            "global statistics in training",
            ((2, 3, 4, 4),),
            "batch_norm_param { use_global_stats: true }",
            phase="TRAIN",
            blobs=positive,
        ),
        Example(
            "batch statistics in test", ((2, 3, 4, 4),), "batch_norm_param { use_global_stats: false }", blobs=positive
        ),
        Example("training", ((3, 2, 4, 4),), phase="TRAIN", blobs=positive),
        Example(
            "training, two axes",
            ((5, 3),),
            "batch_norm_param { moving_average_fraction: 0.9 eps: 0.001 }",
            phase="TRAIN",
            blobs=positive,
        ),
        Example("training, in place", ((2, 3, 4),), phase="TRAIN", blobs=positive, in_place=True),
    )
