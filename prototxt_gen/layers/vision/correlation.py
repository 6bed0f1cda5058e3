"""Layer type Correlation (FlowNet 2): similarity of patches in two feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType, exactly, show_all
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, boolean, enum, int32, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class CorrelationParameter(Message, field="correlation_param", number=1150):
    """The fork gives it the number 150, which other forks use for other messages. `do_abs` has no effect there."""

    pad = uint32(2)
    kernel_size = uint32(3)
    max_displacement = uint32(4)
    stride_1 = uint32(5, 1)
    stride_2 = uint32(6, 1)
    single_direction = int32(8)
    do_abs = boolean(7)
    correlation_type = enum(15, "MULTIPLY", "SUBTRACT")

    @property
    def displacements(self) -> list[int]:
        """Displacements along each axis, in pixels."""
        radius = self.max_displacement // self.stride_2
        return [step * self.stride_2 for step in range(-radius, radius + 1)]


class Correlation(LayerType):
    """Compare patches of one bottom with displaced patches of the other: mean product, or mean absolute difference.

    Source: lmb-freiburg/flownet2 src/caffe/layers/correlation_layer.cu CorrelateData, CorrelateDataSubtract (GPU code
        only).
    Shape: N×C×H×W twice → N×D²×H'×W', with D = 2·floor(max_displacement / stride_2) + 1 displacements along y and x and
        H' = ceil((H + 2·pad - 2·max_displacement - kernel_size + 1) / stride_1).
    Blobs: none.
    Differs: PyTorch and ONNX have no such operator; the ONNX form consists of products and an AveragePool.
    """

    type = "Correlation"
    params = (CorrelationParameter,)
    bottoms = exactly(2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p, (first, second) = layer.get(CorrelationParameter), bottoms
        if len(first) != 4 or tuple(first) != tuple(second):
            raise layer.error(f"bottoms differ, {show_all(bottoms)}; it needs N×C×H×W twice")
        if not (p.has("kernel_size") and p.has("max_displacement")) or p.kernel_size % 2 == 0:
            raise layer.error("it needs an odd kernel_size, and a max_displacement")
        if 0 in (p.stride_1, p.stride_2):
            raise layer.error("stride_1 and stride_2 must be at least 1")
        ranges = (size + 2 * p.pad - 2 * p.max_displacement - p.kernel_size + 1 for size in first[2:])
        size = [-(-left // p.stride_1) for left in ranges]
        if min(size) < 1:
            raise layer.error(f"kernel and displacements do not fit in its padded bottom {show(first)}")
        return [(first[0], len(p.displacements) ** 2, *size)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn
        from torch.nn import functional

        p = layer.get(CorrelationParameter)
        displacements, reach, subtracts = p.displacements, p.max_displacement, p.correlation_type == "SUBTRACT"

        class Correlation(nn.Module):
            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                x, y = (functional.pad(one, [p.pad] * 4) for one in (x, y))
                high, wide = x.shape[2] - 2 * reach, x.shape[3] - 2 * reach
                here = x[:, :, reach : reach + high, reach : reach + wide]
                maps = []
                for down in displacements:
                    rows = y[:, :, reach + down : reach + down + high]
                    for right in displacements:
                        there = rows[..., reach + right : reach + right + wide]
                        each = (here - there).abs() if subtracts else here * there
                        maps.append(each.mean(1))
                return functional.avg_pool2d(torch.stack(maps, 1), p.kernel_size, p.stride_1)

        return Correlation()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        """Write all displacements along x at once and those along y one by one, to limit the use of memory."""
        import numpy as np

        p, (_, _, high, wide) = layer.get(CorrelationParameter), g.shape(bottoms[0])
        reach, pads = p.max_displacement, [0, 0, p.pad, p.pad, 0, 0, p.pad, p.pad]
        x, y = (g.op("Pad", one, g.const(pads, "pads")) for one in bottoms)
        high, wide = high + 2 * (p.pad - reach), wide + 2 * (p.pad - reach)
        ends = [reach + high, reach + wide]
        here = g.op("Slice", x, g.const([reach, reach]), g.const(ends), g.const([2, 3]))
        here = g.op("Unsqueeze", here, g.const([3]))
        columns = np.arange(wide) + reach + np.asarray(p.displacements)[:, None]
        maps = []
        for down in p.displacements:
            rows = g.op("Slice", y, g.const([reach + down]), g.const([reach + down + high]), g.const([2]))
            there = g.op("Gather", rows, columns, axis=3)  # N×C×H×D×W
            each = (
                g.op("Abs", g.op("Sub", here, there)) if p.correlation_type == "SUBTRACT" else g.op("Mul", here, there)
            )
            mean = g.op("ReduceMean", each, g.const([1]), keepdims=0)
            maps.append(g.op("Transpose", mean, perm=[0, 2, 1, 3]))
        top = g.op("Concat", *maps, axis=1)
        return g.op("AveragePool", top, kernel_shape=(p.kernel_size,) * 2, strides=(p.stride_1,) * 2)

    examples = (
        Example(
            "as in FlowNet",
            ((2, 3, 4, 5), (2, 3, 4, 5)),
            "correlation_param { pad: 4 kernel_size: 1 max_displacement: 4 stride_1: 1 stride_2: 2 }",
            gradients=False,
        ),
        Example(
            "a larger kernel, strides",
            ((1, 2, 7, 8), (1, 2, 7, 8)),
            "correlation_param { pad: 3 kernel_size: 3 max_displacement: 3 stride_1: 2 stride_2: 2 }",
            gradients=False,
        ),
        Example(
            "distances",
            ((1, 2, 5, 4), (1, 2, 5, 4)),
            "correlation_param { pad: 1 kernel_size: 3 max_displacement: 1 correlation_type: SUBTRACT }",
            gradients=False,
        ),
    )
