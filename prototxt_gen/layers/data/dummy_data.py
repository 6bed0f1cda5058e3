"""Layer type DummyData: blobs filled by fillers."""

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
    """Return the filler of each top. Raises NetError if their number does not fit."""
    values, tops = layer.get(DummyDataParameter).data_filler or (CONSTANT_ZERO,), len(layer.tops)
    if len(values) not in (1, tops):
        raise layer.error(f"it has {len(values)} data_filler for {tops} tops; it needs none, one, or one for each top")
    return values * tops if len(values) == 1 else values


def _constants(layer: Layer) -> Iterator[float]:
    """Yield the constant value of each top. Raises UnsupportedError if a filler is random."""
    for filler in fillers(layer):
        if filler.type != "constant":
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): filler {filler.type!r} draws new numbers in every forward pass; "
                "make its top an input of the net"
            )
        yield filler.value


class DummyData(LayerType):
    """Fill each top by its filler: with a constant, or with random numbers that are drawn again in every forward pass.

    Source: src/caffe/layers/dummy_data_layer.cpp DummyDataLayer::LayerSetUp, Forward_cpu.
    Shape: given by shape, or by num, channels, height and width; one for all tops, or one for each.
    Blobs: none.
    Differs: constant fillers become constants of the PyTorch module and the ONNX model; a top with a random filler must
        be an input.
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
            raise layer.error("it has both shape and num, channels, height or width; only one form is allowed")
        sizes = [self._each(layer, name, getattr(p, name), tops) for name in _SIZES]
        return list(zip(*sizes, strict=True))

    def _each(self, layer: Layer, name: str, values: Sequence[Any], tops: int) -> Sequence[Any]:
        """Return one value for each top. Raises NetError if their number does not fit."""
        if len(values) not in (1, tops):
            raise layer.error(f"it has {len(values)} {name} for {tops} tops; it needs one, or one for each top")
        return list(values) * tops if len(values) == 1 else values

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

        tops = zip(self.shapes(layer, ()), _constants(layer), strict=True)
        return [g.op("Identity", np.full(shape, constant, dtype=np.float32)) for shape, constant in tops]

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
