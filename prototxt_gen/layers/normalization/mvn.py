"""Layer type MVN: mean and variance normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example, literal
from prototxt_gen.schema.message import Message, boolean, float32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class MVNParameter(Message, field="mvn_param", number=120):
    normalize_variance = boolean(1, True)
    across_channels = boolean(2)
    eps = float32(3, 1e-9)


class MVN(LayerType):
    """Normalise each channel of each image, or each image if across_channels is true.

    The mean is subtracted; then the result is divided by the standard deviation plus eps, unless normalize_variance is
    false.

    Source: src/caffe/layers/mvn_layer.cpp MVNLayer::Reshape, Forward_cpu, Backward_cpu.
    Shape: the top has the bottom's shape with axes of size 1 appended up to four axes.
    Blobs: none.
    Differs: torch.nn.InstanceNorm2d, GroupNorm and ONNX MeanVarianceNormalization add eps to the variance; Caffe adds
        it to the standard deviation, and its default is 1e-9. The gradient is Caffe's, which takes eps for 0 in one
        place; so it is finite where all pixels are equal.
    """

    type = "MVN"
    params = (MVNParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) > 4:
            raise layer.error(f"its bottom {show(bottoms[0])} has more than four axes")
        return [bottoms[0] + (1,) * (4 - len(bottoms[0]))]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p, ones = layer.get(MVNParameter), [1] * (4 - len(bottoms[0]))
        axes = (1, 2, 3) if p.across_channels else (2, 3)

        class MeanVarianceNormalised(nn.Module):
            def forward(self, bottom: Tensor) -> Tensor:
                bottom = bottom.reshape(*bottom.shape, *ones)
                centred = bottom - bottom.mean(axes, keepdim=True)
                if not p.normalize_variance:
                    return centred
                variance = centred.square().mean(axes, keepdim=True)
                divisor = variance.detach().sqrt() + p.eps
                # the second term is 0; its gradient is Caffe's, which has an eps where the true one has none
                return centred / (divisor + (variance - variance.detach()) / (2 * divisor))

        return MeanVarianceNormalised()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p, rank, bottom = layer.get(MVNParameter), len(g.shape(bottoms[0])), bottoms[0]
        if rank < 4:
            bottom = g.op("Unsqueeze", bottom, g.const(range(rank, 4), "axes"))
        axes = g.const([1, 2, 3] if p.across_channels else [2, 3], "axes")
        centred = g.op("Sub", bottom, g.op("ReduceMean", bottom, axes))
        if not p.normalize_variance:
            return centred
        root = g.op("Sqrt", g.op("ReduceMean", g.op("Mul", centred, centred), axes))
        return g.op("Div", centred, g.op("Add", root, g.const(p.eps, "eps")))

    examples = (
        Example("plain", ((2, 3, 4, 4),)),
        Example("mean only", ((2, 3, 4, 4),), "mvn_param { normalize_variance: false }"),
        Example("across channels", ((2, 3, 4, 4),), "mvn_param { across_channels: true }"),
        Example(
            "across channels, mean only",
            ((2, 3, 4, 4),),
            "mvn_param { across_channels: true normalize_variance: false }",
        ),
        Example("large eps", ((2, 2, 3, 3),), "mvn_param { eps: 0.5 }"),
        Example("three axes", ((2, 3, 5),)),
        Example("two axes, across channels", ((3, 5),), "mvn_param { across_channels: true }"),
        Example("a flat plane", ((1, 2, 1, 2),), "mvn_param { eps: 0.1 }", draws=(literal([2, 2, 1, 3]),)),
    )
