"""Layer type BatchToSpaceND (synopsys-caffe): the inverse of SpaceToBatchND."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.layers.vision.space_to_batch_nd import check_blocks
from prototxt_gen.schema.message import Message, repeated, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class BatchToSpaceNDParameter(Message, field="batch_to_space_nd_param", number=235):
    block_shape = repeated(uint32(1))
    crops = repeated(uint32(2))


class BatchToSpaceND(LayerType):
    """Move items of the batch to blocks of pixels and crop the edges: the inverse of SpaceToBatchND.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe src/caffe/layers/batch_to_space_nd_layer.cpp.
    Shape: N×A×B×… → N/(a·b·…)×(A·a - crops)×(B·b - crops)×….
    Blobs: none.
    Differs: no difference from TensorFlow; the channels count as an axis. The fork has no backward pass; here there is
        one.
    """

    type = "BatchToSpaceND"
    params = (BatchToSpaceNDParameter,)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        (bottom,), p = bottoms, layer.get(BatchToSpaceNDParameter)
        blocks, crops = p.block_shape, p.crops
        check_blocks(layer, bottom, blocks, crops, "crops")
        top = list(bottom)
        for axis, block in enumerate(blocks, 1):
            if top[0] % block:
                raise layer.error(f"block_shape does not divide the batch of its bottom {show(bottom)}")
            top[0], top[axis] = top[0] // block, top[axis] * block - crops[2 * axis - 2] - crops[2 * axis - 1]
        return [tuple(top)]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p, rank = layer.get(BatchToSpaceNDParameter), len(bottoms[0])
        blocks, order = p.block_shape, _batch_to_space_order(len(p.block_shape), rank)
        edges = list(zip(p.crops[::2], p.crops[1::2], strict=True))

        class BatchToSpace(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                parts = x.reshape(*blocks, -1, *x.shape[1:]).permute(order)
                for axis in range(1, len(blocks) + 1):
                    parts = parts.flatten(axis, axis + 1)
                for axis, (begin, end) in enumerate(edges, 1):
                    parts = parts.narrow(axis, begin, parts.shape[axis] - begin - end)
                return parts

        return BatchToSpace()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        p, shape = layer.get(BatchToSpaceNDParameter), g.shape(bottoms[0])
        blocks, (top,) = p.block_shape, self.shapes(layer, [shape])
        count = len(blocks)
        parts = g.op("Reshape", bottoms[0], g.const([*blocks, -1, *shape[1:]]))
        gathered = g.op("Transpose", parts, perm=_batch_to_space_order(count, len(shape)))
        whole = [size * block for size, block in zip(shape[1:], blocks, strict=False)]
        joined = g.op("Reshape", gathered, g.const([-1, *whole, *shape[1 + count :]]))
        begins = p.crops[::2]
        ends = [begin + size for begin, size in zip(begins, top[1:], strict=False)]
        return g.op("Slice", joined, g.const(begins), g.const(ends), g.const(list(range(1, count + 1))))

    examples = (
        Example(
            "the plane",
            ((8, 3, 3, 4),),
            "batch_to_space_nd_param { block_shape: 1 block_shape: 2 block_shape: 2 "
            "crops: 0 crops: 0 crops: 2 crops: 1 crops: 0 crops: 2 }",
            gradients=False,
        ),
        Example(
            "channels last",
            ((6, 2, 2, 2),),
            "batch_to_space_nd_param { block_shape: 2 block_shape: 3 crops: 0 crops: 0 crops: 1 crops: 2 }",
            gradients=False,
        ),
    )


def _batch_to_space_order(count: int, rank: int) -> list[int]:
    """Return the order that moves axes (blocks, batch, others) so that each axis is followed by its block."""
    pairs = [axis for i in range(count) for axis in (count + 1 + i, i)]
    return [count, *pairs, *range(2 * count + 1, rank + count)]
