"""Layer type Filter: items of a batch selected by flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import Arity, LayerType, show_all
from prototxt_gen.layers.example import Example, literal, normal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class Filter(LayerType):
    """Select the items for which the last bottom, the selector, is not zero, from every other bottom.

    Source: src/caffe/layers/filter_layer.cpp FilterLayer::Reshape, Forward_cpu, Backward_cpu.
    Shape: the tops have the shapes of the bottoms, with N as the maximum batch size; Caffe too declares that before the
        first forward pass.
    Blobs: none.
    Differs: no difference from PyTorch or ONNX; there too the batch size of the tops is known only after the forward
        pass.
    """

    type = "Filter"
    bottoms = Arity(2)
    tops = Arity(1)

    def check_arity(self, layer: Layer) -> None:
        super().check_arity(layer)
        if len(layer.tops) != len(layer.bottoms) - 1:
            raise layer.error(f"{len(layer.bottoms)} bottoms need {len(layer.bottoms) - 1} tops, not {len(layer.tops)}")

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        *filtered, selector = bottoms
        if any(size != 1 for size in selector[1:]):
            raise layer.error(f"its selector {show(selector)} must have one element for each item of the batch")
        if any(bottom[:1] != selector[:1] for bottom in filtered):
            raise layer.error(f"bottoms differ, {show_all(bottoms)}; they need equal batch sizes")
        return filtered

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        class Filter(nn.Module):
            def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
                selected = bottoms[-1].flatten() != 0
                return tuple(bottom[selected] for bottom in bottoms[:-1])

        return Filter()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        *filtered, selector = bottoms
        selected = g.op("Cast", g.op("Reshape", selector, g.const([-1], "shape")), to=9)
        return [g.op("Compress", bottom, selected, axis=0) for bottom in filtered]

    # All items are selected: with fewer, the shapes of the tops are not the declared ones. Other tests cover that case.
    examples = (
        Example("all rows chosen", ((3, 2, 2), (3, 1)), draws=(normal, literal([1, 0.5, -2])), gradients=False),
        Example(
            "two bottoms",
            ((2, 3), (2, 1, 2), (2,)),
            tops=2,
            draws=(normal, normal, literal([1, 1])),
            gradients=False,
        ),
    )
