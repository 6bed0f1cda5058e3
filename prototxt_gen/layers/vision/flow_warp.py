"""Layer type FlowWarp (FlowNet 2): an image warped by an optical flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import refuse_wrong_in_place
from prototxt_gen.layers.base import LayerType, exactly, show_all
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, enum

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class FlowWarpParameter(Message, field="flow_warp_param", number=1159):
    """The fork gives it the number 159, which other forks use for other messages."""

    fill_value = enum(1, "ZERO", "NOT_A_NUMBER", first=1)

    @property
    def fill(self) -> float:
        """Value of pixels whose flow points outside the image."""
        return 0.0 if self.fill_value == "ZERO" else float("nan")


class FlowWarp(LayerType):
    """Take each pixel of the top from the position in the image to which the flow points, by bilinear interpolation.

    Source: lmb-freiburg/flownet2 src/caffe/layers/flow_warp_layer.cpp Forward_cpu, Backward_cpu; the GPU code is the
        same.
    Shape: image N×C×H×W, flow N×2×H×W (x, y) → N×C×H×W.
    Blobs: none.
    Differs: torch.nn.functional.grid_sample has relative positions; here they are in pixels. Positions outside 0 ≤
        position < size give fill_value; positions after the last pixel's give that pixel.
    """

    type = "FlowWarp"
    params = (FlowWarpParameter,)
    bottoms = exactly(2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        image, flow = bottoms
        refuse_wrong_in_place(layer)
        if len(image) != 4 or tuple(flow) != (image[0], 2, *image[2:]):
            raise layer.error(f"its bottoms are {show_all(bottoms)}; it needs N×C×H×W and N×2×H×W")
        return [image]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        fill = layer.get(FlowWarpParameter).fill

        class FlowWarp(nn.Module):
            def forward(self, image: Tensor, flow: Tensor) -> Tensor:
                high, wide = image.shape[2], image.shape[3]
                x = flow[:, :1] + torch.arange(wide, device=flow.device)
                y = flow[:, 1:] + torch.arange(high, device=flow.device)[:, None]
                inside = (x >= 0) & (y >= 0) & (x < wide) & (y < high)
                x, y = torch.where(inside, x, 0.0), torch.where(inside, y, 0.0)
                left, top = x.detach().floor(), y.detach().floor()
                right, below = (left + 1).clamp(max=wide - 1), (top + 1).clamp(max=high - 1)
                a, b, pixels = x - left, y - top, image.flatten(2)

                def at(row: Tensor, column: Tensor) -> Tensor:
                    place = (row * wide + column).long().flatten(2).expand(-1, image.shape[1], -1)
                    return pixels.gather(2, place).reshape(image.shape)

                upper = (1 - a) * (1 - b) * at(top, left) + a * (1 - b) * at(top, right)
                warped = upper + (1 - a) * b * at(below, left) + a * b * at(below, right)
                return torch.where(inside, warped, fill)

        return FlowWarp()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        import numpy as np

        image, flow = bottoms
        _, channels, high, wide = g.shape(image)
        grid = np.stack(np.meshgrid(np.arange(wide), np.arange(high)))[None].astype("float32")
        size = np.array([wide, high], dtype="float32").reshape(1, 2, 1, 1)
        place = g.op("Add", flow, grid)
        within = g.op("And", g.op("GreaterOrEqual", place, g.const(0.0)), g.op("Less", place, size))
        inside = g.op("ReduceMin", g.op("Cast", within, to=6), g.const([1]))
        inside = g.op("Cast", inside, to=9)
        place = g.op("Where", inside, place, g.const(0.0))
        first = g.op("Floor", place)
        last = g.op("Min", g.op("Add", first, g.const(1.0)), size - 1)
        a, b = g.ops("Split", g.op("Sub", place, first), outputs=2, axis=1, num_outputs=2)
        (left, top), (right, below) = (g.ops("Split", p, outputs=2, axis=1, num_outputs=2) for p in (first, last))
        pixels = g.op("Reshape", image, g.const([0, 0, -1]))
        rest = [g.op("Sub", g.const(1.0), share) for share in (a, b)]
        warped = ""
        for row, column, x_share, y_share in (
            (top, left, *rest), (top, right, a, rest[1]), (below, left, rest[0], b), (below, right, a, b)
        ):  # fmt: skip
            index = g.op("Cast", g.op("Add", g.op("Mul", row, g.const(float(wide))), column), to=7)
            index = g.op("Expand", g.op("Reshape", index, g.const([0, 1, -1])), g.const([1, channels, 1]))
            neighbour = g.op("Reshape", g.op("GatherElements", pixels, index, axis=2), g.const([0, 0, high, wide]))
            term = g.op("Mul", g.op("Mul", x_share, y_share), neighbour)
            warped = g.op("Add", warped, term) if warped else term
        return g.op("Where", inside, warped, g.const(layer.get(FlowWarpParameter).fill))

    examples = (
        Example("plain", ((2, 3, 4, 5), (2, 2, 4, 5)), gradients=False),
        Example("a row", ((1, 2, 1, 6), (1, 2, 1, 6)), "flow_warp_param { fill_value: ZERO }", gradients=False),
    )
