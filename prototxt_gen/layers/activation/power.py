"""Layer type Power: scale, shift and exponent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.example import Example, positive
from prototxt_gen.layers.neuron import Neuron, elementwise
from prototxt_gen.schema.message import Message, float32

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class PowerParameter(Message, field="power_param", number=122):
    power = float32(1, 1.0)
    scale = float32(2, 1.0)
    shift = float32(3)


def _power(base: Tensor, power: float) -> Tensor:
    return base if power == 1 else base**power


class Power(Neuron):
    """Compute (shift + scale · x) ^ power of each element; the result is constant if power · scale is 0.

    Source: src/caffe/layers/power_layer.cpp PowerLayer::Forward_cpu, Backward_cpu.
    Shape: the top has the bottom's shape.
    Blobs: none.
    Differs: power 0 gives 1 everywhere, even for NaN. Unless power is 1 or 2, Caffe's gradient is 0 / 0 where shift +
        scale · x is 0; in place, Caffe's gradient is wrong because the bottom is overwritten. The gradient here is the
        true one.
    """

    type = "Power"
    params = (PowerParameter,)

    def constant(self, layer: Layer) -> float | None:
        """Return the value of all elements of the top if it does not depend on the bottom, else None."""
        import numpy as np

        p = layer.get(PowerParameter)
        if p.power * p.scale:
            return None
        with np.errstate(all="ignore"):
            return float(np.float32(p.shift) ** np.float32(p.power)) if p.power else 1.0

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        import torch

        p, constant = layer.get(PowerParameter), self.constant(layer)
        words = f"({p.shift} + {p.scale}·x)^{p.power}"
        if constant is not None:
            return elementwise(lambda x: torch.full_like(x, constant), words)
        return elementwise(lambda x: _power(p.shift + p.scale * x, p.power), words)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        import numpy as np
        from onnx import numpy_helper

        p, constant = layer.get(PowerParameter), self.constant(layer)
        if constant is not None:
            value = numpy_helper.from_array(np.asarray([constant], dtype="float32"))
            return g.op("ConstantOfShape", g.op("Shape", bottoms[0]), value=value)
        top = g.op("Mul", bottoms[0], g.const(p.scale, "scale")) if p.scale != 1 else bottoms[0]
        top = g.op("Add", top, g.const(p.shift, "shift")) if p.shift else top
        top = g.op("Pow", top, g.const(p.power, "power")) if p.power != 1 else top
        return top if top != bottoms[0] else g.op("Identity", top)

    examples = (
        Example("plain", ((2, 3),)),
        Example("square", ((2, 3, 4, 4),), "power_param { power: 2 }"),
        Example("square, scaled, shifted", ((2, 3, 4),), "power_param { power: 2 scale: -0.5 shift: 1.5 }"),
        Example("cube", ((2, 5),), "power_param { power: 3 scale: 2 }"),
        Example("root", ((2, 5),), "power_param { power: 0.5 shift: 0.1 }", draws=(positive,)),
        Example("inverse", ((2, 5),), "power_param { power: -1 }", draws=(positive,)),
        Example("no number", ((2, 5),), "power_param { power: 0.5 shift: -0.2 }", gradients=False),
        Example("scaled", ((2, 5),), "power_param { scale: 0.0078125 }"),
        Example("shifted", ((2, 5),), "power_param { shift: -127.5 }"),
        Example(
            "scaled, shifted, in place", ((2, 5),), "power_param { scale: 2 shift: -1 }", gradients=False, in_place=True
        ),
        Example("power 0", ((2, 5),), "power_param { power: 0 shift: 3 scale: 2 }"),
        Example("scale 0", ((2, 5),), "power_param { power: 3 scale: 0 shift: 1.5 }"),
        Example("scale 0, power 1", ((2, 5),), "power_param { scale: 0 shift: -4 }"),
        Example("all 0", ((2, 5),), "power_param { power: 0 scale: 0 }"),
    )
