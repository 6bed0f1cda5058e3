"""Layer type Pad (brocolli-caffe, synopsys-caffe): a border around the image, or around any axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, enum, float32, int32, repeated, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class PadParameter(Message, field="pad_param", number=504):
    """Fields and numbers are those of brocolli-caffe. Synopsys' layer (224) has the last two, with numbers 1 and 2."""

    pad_type = enum(1, "CONSTANT", "REPLICATE", "REFLECT")
    pad_u = int32(2)
    pad_d = int32(3)
    pad_l = int32(4)
    pad_r = int32(5)
    pad_value = float32(6)
    paddings = repeated(uint32(1001))
    constant_values = float32(1002)


_ONNX_MODES = {"CONSTANT": "constant", "REPLICATE": "edge", "REFLECT": "reflect"}


def border(layer: Layer, bottom: Shape) -> tuple[tuple[int, int], ...]:
    """Return the number of elements added at the beginning and end of each axis; negative numbers crop.

    Raises NetError or UnsupportedError if the fields do not fit the bottom or each other.
    """
    p = layer.get(PadParameter)
    if p.paddings:
        if len(p.paddings) != 2 * len(bottom) or any(p.has(name) for name in list(p.fields)[:6]):
            raise layer.error(f"paddings needs two numbers for each axis of {show(bottom)} and no other field")
        return tuple(zip(p.paddings[::2], p.paddings[1::2], strict=True))
    sides = (p.pad_u, p.pad_d, p.pad_l, p.pad_r)
    if len(bottom) != 4 or p.has("constant_values"):
        raise UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): a bottom {show(bottom)} needs paddings for each axis"
        )
    if min(sides) < 0 <= max(sides):
        raise UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): cropping one side and padding another is not supported"
        )
    return ((0, 0), (0, 0), sides[:2], sides[2:])


class Pad(LayerType):
    """Add a border: of a constant, of the edge pixels, or of the image mirrored at its edge pixels.

    Source: brocolli-caffe 9.0.2 src/caffe/layers/pad_layer.cpp PadLayer::Forward_cpu; for `paddings`
        foss-for-synopsys-dwc-arc-processors/synopsys-caffe, the same.
    Shape: N×C×H×W → N×C×(H + pad_u + pad_d)×(W + pad_l + pad_r); or in + paddings on each axis.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX. Negative numbers on all four sides crop the image. The forks have no
        backward pass; here there is one.
    """

    type = "Pad"
    params = (PadParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), p = bottoms, layer.get(PadParameter)
        refuse_in_place(layer)
        added = border(layer, bottom)
        top = tuple(size + sum(sides) for size, sides in zip(bottom, added, strict=True))
        if min(top) < 1:
            raise layer.error(f"nothing would be left of its bottom {show(bottom)}")
        if p.pad_type == "REFLECT" and any(max(sides) >= size for size, sides in zip(bottom, added, strict=True)):
            raise layer.error(f"a mirrored border must be narrower than its bottom {show(bottom)}")
        return [top]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn
        from torch.nn import functional

        p, added = layer.get(PadParameter), border(layer, bottoms[0])
        sides = [side for pair in reversed(added) for side in pair]
        if not p.paddings:
            around = (sides[0], sides[1], sides[2], sides[3])
            if p.pad_type == "CONSTANT" or min(around) < 0:
                return nn.ConstantPad2d(around, p.pad_value)
            return nn.ReplicationPad2d(around) if p.pad_type == "REPLICATE" else nn.ReflectionPad2d(around)

        class PadAllAxes(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return functional.pad(x, sides, value=p.constant_values)

        return PadAllAxes()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p, added = layer.get(PadParameter), border(layer, g.shape(bottoms[0]))
        pads = g.const([begin for begin, _ in added] + [end for _, end in added], "pads")
        cuts = min(map(min, added)) < 0
        value = g.const(p.constant_values if p.paddings else p.pad_value, "value")
        return g.op("Pad", bottoms[0], pads, value, mode="constant" if cuts else _ONNX_MODES[p.pad_type])

    examples = (
        Example(
            "constant",
            ((2, 3, 4, 5),),
            "pad_param { pad_u: 1 pad_d: 2 pad_l: 0 pad_r: 3 pad_value: 1.5 }",
            gradients=False,
        ),
        Example(
            "edge", ((1, 2, 3, 4),), "pad_param { pad_type: REPLICATE pad_u: 2 pad_l: 1 pad_r: 3 }", gradients=False
        ),
        Example(
            "mirrored",
            ((1, 2, 4, 5),),
            "pad_param { pad_type: REFLECT pad_u: 3 pad_d: 1 pad_l: 2 pad_r: 4 }",
            gradients=False,
        ),
        Example(
            "cut",
            ((1, 2, 6, 7),),
            "pad_param { pad_u: -1 pad_d: -2 pad_l: -3 pad_r: -1 pad_value: 9 }",
            gradients=False,
        ),
    )
