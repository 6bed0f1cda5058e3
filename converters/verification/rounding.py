"""How much rounding alone can change the blobs of a net, from runs of PyTorch in single and in double precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.common.net_with_weights import NetWithWeights
from prototxt_gen import layers
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.optional_packages import need
from prototxt_gen.ir import Layer, Value

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]
UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of rounding a number to float32."""
STANDARD_DEVIATIONS = 4
"""A sum of n terms is off by less than this many times sqrt(n) times the roundoff times the sum of their sizes.

That holds with a probability above 99.9 %: Higham and Mary, A new approach to probabilistic rounding error analysis,
SIAM J. Sci. Comput. 41 (2019), theorem 2.4.
"""
MAX_ROUNDING_RATIO = 10
"""An error is excused up to this many times the difference between PyTorch in single and in double precision."""
_SAMPLED_ELEMENTS = 8


@dataclass(frozen=True)
class ZeroBlob:
    """A blob that is zero but for rounding.

    `magnitude`: sum of the sizes of the terms from which its layer computes an element. `bound`: the largest number
    that rounding can leave in place of zero.
    """

    magnitude: float
    bound: float

    def holds(self, array: Array) -> bool:
        """Whether an array has nothing but rounding in it."""
        return bool(np.isfinite(array).all()) and float(np.abs(array).max(initial=0)) <= self.bound


class RoundingEffect:
    """How much rounding alone changes each blob of a net on these inputs; computed when it is first needed."""

    def __init__(self, model: NetWithWeights, inputs: Mapping[str, Array]) -> None:
        self.model, self.inputs = model, inputs
        self._zero_blobs: dict[Value, ZeroBlob | None] = {}

    def on_value(self, value: Value) -> float:
        """Return the largest difference between PyTorch in single and double precision; 0 if it cannot run."""
        single, double = self._single_and_double
        if value not in double or value not in single or single[value].shape != double[value].shape:
            return 0.0
        gap = (single[value].double() - double[value]).abs().nan_to_num(0, 0, 0)
        return float(gap.max()) if gap.numel() else 0.0

    def zero_blob(self, layer: Layer, value: Value) -> ZeroBlob | None:
        """Return the limits for a top of `layer` that is mathematically zero; None for any other.

        It is zero if double precision gives a number that is smaller than what single precision can leave: the
        rounding of the terms that enter the layer, and the errors that its bottoms have already.
        """
        if value not in self._zero_blobs:
            self._zero_blobs[value] = self._find_zero_blob(layer, value)
        return self._zero_blobs[value]

    def _find_zero_blob(self, layer: Layer, value: Value) -> ZeroBlob | None:
        _, double = self._single_and_double
        if value not in double or any(bottom not in double for bottom in layer.bottoms) or not layer.bottoms:
            return None
        if float(double[value].abs().max()) > self.on_value(value):  # single precision has correct digits
            return None
        try:
            magnitude, bound = self._terms(layer, layer.tops.index(value))
        except (RuntimeError, PrototxtGenError):  # a module without a gradient, or for one precision only
            return None
        zero = ZeroBlob(magnitude, bound)
        return zero if zero.holds(double[value].numpy()) else None

    def _terms(self, layer: Layer, top_index: int) -> tuple[float, float]:
        """Return `magnitude` and `bound` of a top: the largest of several elements.

        An element depends on each number x of bottoms and parameters by its derivative d: |d * x| is the size of its
        term, and an error e of x becomes |d * e|. A bottom that is zero itself counts with its own magnitude.
        """
        import torch

        _, double = self._single_and_double
        module = _layer_module(self.model, layer, [double[bottom] for bottom in layer.bottoms])
        bottoms = [double[bottom].detach().clone().requires_grad_() for bottom in layer.bottoms]
        result = module(*bottoms)
        top = (result if isinstance(result, (tuple, list)) else (result,))[top_index].reshape(-1)
        errors = [self._error_of(bottom) for bottom in layer.bottoms]
        arguments = [*bottoms, *module.parameters()]
        numbers = [number.detach() for number in arguments]
        floors = [self._magnitude_of(bottom) for bottom in layer.bottoms] + [0.0] * (len(numbers) - len(bottoms))
        magnitude = bound = 0.0
        for index in np.unique(np.linspace(0, len(top) - 1, _SAMPLED_ELEMENTS, dtype=int)) if len(top) else []:
            slopes = torch.autograd.grad(top[int(index)], arguments, retain_graph=True, allow_unused=True)
            terms = [(d * x).abs() for d, x in zip(slopes, numbers, strict=True) if d is not None]
            size, count = sum(float(t.sum()) for t in terms), sum(int((t > 0).sum()) for t in terms)
            whole = sum(
                float((d.abs() * x.abs().clamp(min=floor)).sum())
                for d, x, floor in zip(slopes, numbers, floors, strict=True)
                if d is not None
            )
            inherited = sum(float((d.abs() * e).sum()) for d, e in zip(slopes, errors, strict=False) if d is not None)
            magnitude = max(magnitude, whole)
            bound = max(bound, STANDARD_DEVIATIONS * count**0.5 * UNIT_ROUNDOFF * size + inherited)
        return magnitude, bound

    def _error_of(self, bottom: Value) -> Tensor:
        """Return how far each number of a bottom may be off."""
        import torch

        single, double = self._single_and_double
        zero = self._zero_bottom(bottom)
        if zero is not None:
            return torch.full_like(double[bottom], zero.bound)
        return MAX_ROUNDING_RATIO * (single[bottom].double() - double[bottom]).abs()

    def _magnitude_of(self, bottom: Value) -> float:
        zero = self._zero_bottom(bottom)
        return zero.magnitude if zero is not None else 0.0

    def _zero_bottom(self, bottom: Value) -> ZeroBlob | None:
        producer = next((layer for layer in self.model.net.layers if bottom in layer.tops), None)
        return self.zero_blob(producer, bottom) if producer is not None else None

    @cached_property
    def _single_and_double(self) -> tuple[Mapping[Value, Tensor], Mapping[Value, Tensor]]:
        try:
            return self._run(double=False), self._run(double=True)
        except (RuntimeError, PrototxtGenError):  # a module that supports one precision only, or no PyTorch
            return {}, {}

    def _run(self, double: bool) -> Mapping[Value, Tensor]:
        """Return every value of the net, also those that an in-place layer overwrites."""
        need("torch")
        import torch

        from prototxt_gen.runtime.torch_net import TorchNet, as_tensors

        net, tensors = TorchNet(self.model.analysis, self.model.weights).eval(), as_tensors(self.inputs)
        if double:
            net, tensors = net.double(), {name: tensor.double() for name, tensor in tensors.items()}
        with torch.no_grad():
            return net.run(tensors)


def _layer_module(model: NetWithWeights, layer: Layer, bottoms: list[Tensor]) -> Any:
    """Return a layer's PyTorch module with its weights, in double precision."""
    layer_type = layers.layer_type_of(layer)
    module = layer_type.torch(layer, [tuple(bottom.shape) for bottom in bottoms]).eval()
    if blobs := model.weights.of(layer.name):
        layer_type.load(module, blobs)
    return module.double()
