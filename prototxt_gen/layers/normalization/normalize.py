"""Layer type Normalize: SSD's form with learned scales, and happynear's without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, BlobSpec, LayerType
from prototxt_gen.layers.example import Example, positive
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, boolean, float32, message, string

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

ONE = FillerParameter(value=1.0)
NORMFACE_EPS = 1e-6


class NormalizeParameter(Message, field="norm_param", number=206):
    """The parameters of Normalize in weiliu89/caffe, branch ssd."""

    across_spatial = boolean(1, True)
    scale_filler = message(2, FillerParameter)
    channel_shared = boolean(3, True)
    eps = float32(4, 1e-10)


class NormFaceParameter(Message, field="normalize_param", number=214):
    """The parameters of Normalize in happynear/caffe-windows, where the message is also called NormalizeParameter."""

    normalize_type = string(1, "L2")
    fix_gradient = boolean(2)
    bp_norm = boolean(3)


class Normalize(LayerType):
    """Divide the channels of each pixel, or each whole image if across_spatial is true, by their L2 norm; then scale.

    Source: weiliu89/caffe, branch ssd, src/caffe/layers/normalize_layer.cpp NormalizeLayer::LayerSetUp, Forward_cpu,
        Backward_cpu; happynear/caffe-windows' of the same name.
    Shape: the top has the bottom's shape. happynear's top has four axes, and its second top N×1×H×W holds the norms.
    Blobs: scale C, or a scalar if channel_shared is true; default filler: constant 1. happynear's form has none.
    Differs: torch.nn.functional.normalize and ONNX LpNormalization do not add eps to the sum of squares. The gradient
        is Caffe's: with a scale for each channel it multiplies by the scale last, so it is not the true gradient. If a
        layer has neither norm_param nor normalize_param, the fork is unknown, and the layer is refused.
    """

    type = "Normalize"
    params = (NormalizeParameter, NormFaceParameter)
    tops = Arity(1, 2)

    def is_normface(self, layer: Layer) -> bool:
        """Whether the layer is happynear's.

        Raises UnsupportedError if the parameters do not show which fork is meant.
        """
        if layer.params.has("norm_param") == layer.params.has("normalize_param"):
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): SSD's Normalize has norm_param {{}}, happynear's has "
                "normalize_param {}, and the two differ; give one of them"
            )
        return layer.params.has("normalize_param")

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        bottom = bottoms[0]
        if not 2 <= len(bottom) <= 4:
            raise layer.error(f"its bottom {show(bottom)} has {len(bottom)} axes; it needs two to four")
        if self.is_normface(layer):
            if layer.get(NormFaceParameter).normalize_type not in ("L1", "L2"):
                raise layer.error("normalize_type is neither L1 nor L2")
            four = bottom + (1,) * (4 - len(bottom))
            return [four, (four[0], 1, *four[2:])][: len(layer.tops)]
        if len(layer.tops) != 1:
            raise layer.error(f"it takes 1 top, not {len(layer.tops)}")
        return [bottom]

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        if self.is_normface(layer):
            return {}
        p = layer.get(NormalizeParameter)
        filler = p.scale_filler if p.has("scale_filler") else ONE
        return {"scale": BlobSpec(() if p.channel_shared else (bottoms[0][1],), filler)}

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        if self.is_normface(layer):
            return _normface(layer.get(NormFaceParameter), len(layer.tops) == 2)
        return _ssd(layer.get(NormalizeParameter), bottoms[0])

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        bottom, rank = bottoms[0], len(g.shape(bottoms[0]))
        if self.is_normface(layer):
            kind = layer.get(NormFaceParameter).normalize_type
            if rank < 4:
                bottom = g.op("Unsqueeze", bottom, g.const(range(rank, 4), "axes"))
            norm = _onnx_norm(g, bottom, [1], kind, NORMFACE_EPS)
            return (g.op("Div", bottom, norm), norm)[: len(layer.tops)]
        p = layer.get(NormalizeParameter)
        norm = _onnx_norm(g, bottom, range(1, rank) if p.across_spatial else [1], "L2", p.eps)
        scale = blobs["scale"] if p.channel_shared else blobs["scale"].reshape(-1, *[1] * (rank - 2))
        return g.op("Mul", g.op("Div", bottom, norm), scale)

    examples = (
        Example(
            "each pixel", ((2, 3, 4, 4),), "norm_param { across_spatial: false channel_shared: false }", blobs=positive
        ),
        Example("each pixel, one scale", ((2, 3, 4, 4),), "norm_param { across_spatial: false }", blobs=positive),
        Example("image", ((2, 3, 4, 4),), "norm_param { channel_shared: false eps: 0.5 }", blobs=positive),
        Example("image, one scale", ((2, 3, 4, 4),), "norm_param { scale_filler { value: 20 } }", blobs=positive),
        Example("two axes", ((2, 5),), "norm_param { across_spatial: false channel_shared: false }", blobs=positive),
        Example(
            "three axes, in place",
            ((2, 3, 4),),
            "norm_param { channel_shared: false }",
            blobs=positive,
            gradients=False,
            in_place=True,
        ),
    )


def _ssd(p: NormalizeParameter, bottom: Shape) -> nn.Module:
    import torch
    from torch import nn

    axes = tuple(range(1, len(bottom))) if p.across_spatial else (1,)

    class ScaledNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(() if p.channel_shared else bottom[1]))

        def forward(self, bottom: Tensor) -> Tensor:
            scale = self.scale if p.channel_shared else self.scale.reshape(-1, *[1] * (bottom.dim() - 2))
            # the differences are 0; their gradients make the scale the last factor, as in Caffe
            late = bottom.detach() + scale.detach() * (bottom - bottom.detach())
            unit = late / (late.square().sum(axes, keepdim=True) + p.eps).sqrt()
            return unit.detach() * scale + (unit - unit.detach())

    return ScaledNorm()


def _normface(p: NormFaceParameter, with_norm: bool) -> nn.Module:
    from torch import nn

    class Norm(nn.Module):
        def forward(self, bottom: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            bottom = bottom.reshape(*bottom.shape, *[1] * (4 - bottom.dim()))
            sums = (bottom.abs() if p.normalize_type == "L1" else bottom.square()).sum(1, keepdim=True) + NORMFACE_EPS
            norm = sums if p.normalize_type == "L1" else sums.sqrt()
            return (bottom / norm, norm if p.bp_norm else norm.detach()) if with_norm else bottom / norm

    return Norm()


def _onnx_norm(g: OnnxGraph, bottom: str, axes: Sequence[int], kind: str, eps: float) -> str:
    each = g.op("Abs", bottom) if kind == "L1" else g.op("Mul", bottom, bottom)
    sums = g.op("Add", g.op("ReduceSum", each, g.const(list(axes), "axes")), g.const(eps, "eps"))
    return sums if kind == "L1" else g.op("Sqrt", sums)
