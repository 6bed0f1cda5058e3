"""Layer type BatchReindex: items of a batch selected by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.axes import refuse_wrong_in_place
from prototxt_gen.layers.base import LayerType, exactly
from prototxt_gen.layers.example import Example, literal, normal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class BatchReindex(LayerType):
    """Select items of the first bottom by the indices in the second; items may be repeated or omitted.

    Source: src/caffe/layers/batch_reindex_layer.cpp BatchReindexLayer::Reshape, Forward_cpu, Backward_cpu.
    Shape: N×…, indices M → M×….
    Blobs: none.
    Differs: Caffe stops at an index out of range, and so does PyTorch here. ONNX accepts indices from -N to -1, counted
        from the end.
    """

    type = "BatchReindex"
    bottoms = exactly(2)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        refuse_wrong_in_place(layer)
        if len(bottoms[1]) != 1:
            raise layer.error(f"its second bottom holds indices and must have one axis; it is {show(bottoms[1])}")
        return [(bottoms[1][0], *bottoms[0][1:])]

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        class Rows(nn.Module):
            def forward(self, bottom: Tensor, rows: Tensor) -> Tensor:
                if bool((rows < 0).any()):
                    raise IndexError(f"{layer.name}: an index is negative")
                return bottom.index_select(0, rows.long())

        return Rows()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        return g.op("Gather", bottoms[0], g.op("Cast", bottoms[1], to=7), axis=0)

    examples = (
        Example("repeated and left out", ((3, 2, 2), (5,)), draws=(normal, literal([2, 0, 0, 2, 2])), gradients=False),
        Example("fewer", ((4, 3), (2,)), draws=(normal, literal([3, 1])), gradients=False),
        Example("numbers cut to whole ones", ((3, 2), (2,)), draws=(normal, literal([1.9, 0.5])), gradients=False),
    )
