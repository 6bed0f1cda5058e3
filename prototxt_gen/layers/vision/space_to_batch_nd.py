"""Layer type SpaceToBatchND (synopsys-caffe): pixels moved to the batch, as in TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_in_place
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.message import Message, repeated, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class SpaceToBatchNDParameter(Message, field="space_to_batch_nd_param", number=236):
    block_shape = repeated(uint32(1))
    paddings = repeated(uint32(2))


def check_blocks(layer: Layer, bottom: Shape, blocks: Sequence[int], edges: Sequence[int], what: str) -> None:
    """Raise NetError if the layer is in place, or if block_shape and `edges` do not fit the bottom."""
    refuse_in_place(layer)
    if len(bottom) <= len(blocks) or 0 in blocks or len(edges) != 2 * len(blocks):
        raise layer.error(
            f"it needs a block_shape of at least 1 and two {what} for each axis that is divided; these are the first "
            f"axes after the batch of its bottom {show(bottom)}"
        )


class SpaceToBatchND(LayerType):
    """Move the pixels of each block, along the axes after the batch, to different items of the batch.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/space_to_batch_nd_layer.cpp.
    Shape: N×A×B×… → (N·a·b·…)×(A + paddings)/a×(B + paddings)/b×…, for block_shape a, b, …; the position in the block
        is the slow part of the new batch index.
    Blobs: none.
    Differs: no difference from TensorFlow; the channels count as an axis. The fork has no backward pass; here there is
        one.
    """

    type = "SpaceToBatchND"
    params = (SpaceToBatchNDParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), p = bottoms, layer.get(SpaceToBatchNDParameter)
        blocks, pads = p.block_shape, p.paddings
        check_blocks(layer, bottom, blocks, pads, "paddings")
        top = list(bottom)
        for axis, block in enumerate(blocks, 1):
            top[axis] += pads[2 * axis - 2] + pads[2 * axis - 1]
            if top[axis] % block:
                raise layer.error(f"a block of {block} does not divide the padded size {top[axis]} of axis {axis}")
            top[0], top[axis] = top[0] * block, top[axis] // block
        return [tuple(top)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn
        from torch.nn import functional

        p, rank = layer.get(SpaceToBatchNDParameter), len(bottoms[0])
        blocks = p.block_shape
        count = len(blocks)
        pads = [0, 0] * (rank - 1 - count) + [
            p.paddings[2 * i + side] for i in reversed(range(count)) for side in (0, 1)
        ]
        order = [*range(2, 2 * count + 1, 2), 0, *range(1, 2 * count, 2), *range(2 * count + 1, rank + count)]

        class SpaceToBatch(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                x = functional.pad(x, pads)
                split = [part for size, b in zip(x.shape[1:], blocks, strict=False) for part in (size // b, b)]
                dealt = x.reshape(x.shape[0], *split, *x.shape[1 + count :]).permute(order)
                return dealt.flatten(0, count)

        return SpaceToBatch()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p, shape = layer.get(SpaceToBatchNDParameter), g.shape(bottoms[0])
        blocks, (top,) = p.block_shape, self.shapes(layer, [shape])
        count, rank = len(blocks), len(shape)
        rest = [0] * (rank - 1 - count)
        pads = g.const([0, *p.paddings[::2], *rest, 0, *p.paddings[1::2], *rest], "pads")
        split = [part for size, b in zip(top[1:], blocks, strict=False) for part in (size, b)]
        parts = g.op("Reshape", g.op("Pad", bottoms[0], pads), g.const([0, *split, *shape[1 + count :]]))
        order = [*range(2, 2 * count + 1, 2), 0, *range(1, 2 * count, 2), *range(2 * count + 1, rank + count)]
        return g.op("Reshape", g.op("Transpose", parts, perm=order), g.const([-1, *top[1:]]))

    examples = (
        Example(
            "the plane",
            ((2, 3, 3, 4),),
            "space_to_batch_nd_param { block_shape: 1 block_shape: 2 block_shape: 2 "
            "paddings: 0 paddings: 0 paddings: 2 paddings: 1 paddings: 0 paddings: 2 }",
            gradients=False,
        ),
        Example(
            "channels last",
            ((1, 4, 3, 2),),
            "space_to_batch_nd_param { block_shape: 2 block_shape: 3 paddings: 0 paddings: 0 paddings: 1 paddings: 2 }",
            gradients=False,
        ),
    )
