"""Layer type DenseBlock (OCR forks): a whole block of a DenseNet in one layer.

The fields are spelled as in the fork's caffe.proto.
"""
# ruff: noqa: N815

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.base import BlobSpec, LayerType
from prototxt_gen.layers.example import Example, positive
from prototxt_gen.layers.normalization._batch_norm_shared import onnx_by_given_statistics
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message, boolean, float32, int32, message

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

    Array = np.ndarray[Any, Any]


class DenseBlockParameter(Message, field="denseblock_param", number=1147):
    """The fork gives it the number 147, which BVLC uses for another message.

    Of the fields up to `filter_W`, only numTransition and growthRate have an effect.
    """

    numTransition = int32(1, 40)
    initChannel = int32(2, 16)
    growthRate = int32(3, 12)
    pad_h = int32(4, 1)
    pad_w = int32(5, 1)
    conv_verticalStride = int32(6, 1)
    conv_horizentalStride = int32(7, 1)
    filter_H = int32(8, 3)
    filter_W = int32(9, 3)
    Filter_Filler = message(10, FillerParameter)
    BN_Scaler_Filler = message(11, FillerParameter)
    BN_Bias_Filler = message(12, FillerParameter)
    gpuIdx = int32(15)
    use_dropout = boolean(16)
    dropout_amount = float32(17)
    use_BC = boolean(18)
    BC_ultra_space_efficient = boolean(19)
    workspace_MB = int32(20, 8)
    moving_average_fraction = float32(21, 0.1)


class DenseBlock(LayerType):
    """Run all steps of a dense block; each adds growthRate channels computed from all channels before it.

    A step is a batch norm, a ReLU and a 3×3 convolution. With use_BC, a batch norm, a ReLU and a 1×1 convolution come
    first.

    Source: senlinuc/caffe_ocr src/caffe/layers/DenseBlock_layer.cu Forward_gpu; DenseBlock_layer.cpp LayerSetUp.
    Shape: N×C×H×W → N×(C + numTransition·growthRate)×H×W.
    Blobs: filter, scale, bias, mean, variance, one blob of each for every step; with use_BC the same for the 1×1
        convolutions, which have 4·growthRate output channels; factor 1.
    Differs: filters are stored rotated by 180 degrees, because the fork asks cuDNN for a true convolution. The fork's
        GPU code uses the statistics as they are and leaves factor at 0; its CPU code divides by factor and increases
        it. Here they are divided by factor if it is not 0. Training averages as the GPU code does.
    """

    type = "DenseBlock"
    params = (DenseBlockParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), p = bottoms, layer.get(DenseBlockParameter)
        refuse_in_place(layer)
        if len(bottom) != 4:
            raise layer.error(f"it needs a bottom with 4 axes, not {show(bottom)}")
        if p.numTransition < 1 or p.growthRate < 1:
            raise layer.error("numTransition and growthRate must be at least 1")
        return [(bottom[0], bottom[1] + p.numTransition * p.growthRate, *bottom[2:])]

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        p = layer.get(DenseBlockParameter)
        inputs = [bottoms[0][1] + step * p.growthRate for step in range(p.numTransition)]
        inner = [4 * p.growthRate] * p.numTransition
        specs = _step_blobs(p, "", inputs, [(p.growthRate, c, 3, 3) for c in (inner if p.use_BC else inputs)])
        if p.use_BC:
            specs |= _step_blobs(p, "inner_", inner, [(4 * p.growthRate, c, 1, 1) for c in inputs])
        return specs | {"factor": BlobSpec((1,), statistic=True)}

    def macs(self, layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        filters = (spec.shape for role, spec in self.blobs(layer, bottoms).items() if "filter" in role)
        return sum(map(math.prod, filters)) * bottoms[0][0] * math.prod(bottoms[0][2:])

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from prototxt_gen.layers.ocr import _dense_block_module

        p = layer.get(DenseBlockParameter)
        shapes = {role: spec.shape for role, spec in self.blobs(layer, bottoms).items()}
        dropout = p.dropout_amount if p.use_dropout else 0.0
        return _dense_block_module.DenseBlock(shapes, p.numTransition, p.use_BC, p.moving_average_fraction, dropout)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, Array]
    ) -> str | Sequence[str]:
        (x,), p = bottoms, layer.get(DenseBlockParameter)
        for step in range(p.numTransition):
            new = _normalised(g, x, blobs, "", step)
            if p.use_BC:
                new = g.op("Conv", new, blobs[f"inner_filter{step}"], kernel_shape=(1, 1))
                new = _normalised(g, new, blobs, "inner_", step)
            rotated = blobs[f"filter{step}"][:, :, ::-1, ::-1]
            new = g.op("Conv", new, rotated, kernel_shape=(3, 3), pads=(1, 1, 1, 1))
            x = g.op("Concat", x, new, axis=1)
        return x

    examples = (
        Example(
            "plain",
            ((2, 3, 4, 5),),
            "denseblock_param { numTransition: 3 growthRate: 2 }",
            blobs=positive,
            gradients=False,
        ),
        Example(
            "with a bottleneck",
            ((1, 2, 3, 4),),
            "denseblock_param { numTransition: 2 growthRate: 3 use_BC: true use_dropout: true dropout_amount: 0.5 }",
            blobs=positive,
            gradients=False,
        ),
    )


def _step_blobs(
    p: DenseBlockParameter, kind: str, channels: Sequence[int], filters: Sequence[Shape]
) -> dict[str, BlobSpec]:
    """Return the blobs of one convolution of each step and of the batch norm before it."""
    specs = {f"{kind}filter{i}": BlobSpec(shape, p.Filter_Filler) for i, shape in enumerate(filters)}
    each = [(1, c, 1, 1) for c in channels]
    specs |= {f"{kind}scale{i}": BlobSpec(shape, p.BN_Scaler_Filler) for i, shape in enumerate(each)}
    specs |= {f"{kind}bias{i}": BlobSpec(shape, p.BN_Bias_Filler) for i, shape in enumerate(each)}
    specs |= {f"{kind}mean{i}": BlobSpec(shape, statistic=True) for i, shape in enumerate(each)}
    one = FillerParameter(value=1.0)
    return specs | {f"{kind}variance{i}": BlobSpec(shape, one, statistic=True) for i, shape in enumerate(each)}


def _normalised(g: OnnxGraph, x: str, blobs: Mapping[str, Array], kind: str, step: int) -> str:
    """Write batch normalisation and ReLU of `x`, with the blobs of one step."""
    factor = float(blobs["factor"].reshape(-1)[0])
    scale, bias, mean, variance = (blobs[f"{kind}{role}{step}"] for role in ("scale", "bias", "mean", "variance"))
    inverse = 1 / factor if factor else 1.0
    return g.op("Relu", onnx_by_given_statistics(g, x, 1e-5, scale, bias, mean * inverse, variance * inverse))
