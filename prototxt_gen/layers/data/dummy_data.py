"""DummyData: blobs made by fillers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import CONSTANT_ZERO, Arity, LayerType, exactly
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.caffe_proto import BlobShape, FillerParameter
from prototxt_gen.schema.message import Message, message, repeated, uint32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

_SIZES = ("num", "channels", "height", "width")


class DummyDataParameter(Message, field="dummy_data_param", number=109):
    data_filler = repeated(message(1, FillerParameter))
    shape = repeated(message(6, BlobShape))
    num = repeated(uint32(2))
    channels = repeated(uint32(3))
    height = repeated(uint32(4))
    width = repeated(uint32(5))


def fillers(layer: Layer) -> tuple[FillerParameter, ...]:
    """Return the filler of each top."""
    given, tops = layer.get(DummyDataParameter).data_filler or (CONSTANT_ZERO,), len(layer.tops)
    if len(given) not in (1, tops):
        raise layer.error(f"it has {len(given)} data fillers for {tops} tops; it takes none, one for all, or one each")
    return given * tops if len(given) == 1 else given


def _constants(layer: Layer) -> Iterator[float]:
    """Yield the number each top is full of, or raise UnsupportedError where one is drawn at random."""
    for filler in fillers(layer):
        if filler.type != "constant":
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): filler {filler.type!r} draws new numbers at every pass; "
                "make its top an input of the net"
            )
        yield filler.value


class DummyData(LayerType):
    """Tops full of what their fillers make: a constant, or random numbers, drawn anew at every pass.

    Source: src/caffe/layers/dummy_data_layer.cpp DummyDataLayer::LayerSetUp, Forward_cpu.
    Shape: shape, or num, channels, height and width; one for all tops, or one each.
    Blobs: none.
    Differs: with constant fillers a constant of the module, of the graph; random ones must come from outside.
    """

    type = "DummyData"
    params = (DummyDataParameter,)
    bottoms = exactly(0)
    tops = Arity(1)
    data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        fillers(layer)
        p, tops = layer.get(DummyDataParameter), len(layer.tops)
        if not any(getattr(p, name) for name in _SIZES):
            return self._each(layer, "shape", [shape.dim for shape in p.shape], tops)
        if p.shape:
            raise layer.error("it has shape and num, channels, height, width; it takes one of the two")
        sizes = [self._each(layer, name, getattr(p, name), tops) for name in _SIZES]
        return list(zip(*sizes, strict=True))

    def _each(self, layer: Layer, name: str, given: Sequence[Any], tops: int) -> Sequence[Any]:
        """Return one value for each top."""
        if len(given) not in (1, tops):
            raise layer.error(f"it has {name} {len(given)} times for {tops} tops; it takes one for all, or one each")
        return list(given) * tops if len(given) == 1 else given

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch
        from torch import nn

        shapes, constants = self.shapes(layer, ()), tuple(_constants(layer))

        class Constants(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                for index, (shape, constant) in enumerate(zip(shapes, constants, strict=True)):
                    self.register_buffer(f"top{index}", torch.full(shape, constant), persistent=False)

            def forward(self) -> tuple[Tensor, ...]:
                return tuple(self.buffers())

        return Constants()

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        import numpy as np

        made = zip(self.shapes(layer, ()), _constants(layer), strict=True)
        return [g.op("Identity", np.full(shape, constant, dtype=np.float32)) for shape, constant in made]

    examples = (
        Example("zeros", (), "dummy_data_param { shape { dim: 2 dim: 3 } }", gradients=False),
        Example(
            "two tops",
            (),
            "dummy_data_param { shape { dim: 3 } shape { dim: 2 } data_filler { value: 1 } data_filler { value: -2 } }",
            tops=2,
            gradients=False,
        ),
        Example(
            "four sizes",
            (),
            "dummy_data_param { num: 2 num: 1 channels: 3 height: 1 width: 2 data_filler { value: 1 } }",
            tops=2,
            gradients=False,
        ),
    )
