"""The base class of layer types. A subclass holds everything known of one Caffe layer type, in one file.

Its class statement registers it. It never holds a net or an array, and it imports torch, onnx and caffe only inside the
methods that need them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Kind, Layer, Shape, show
from prototxt_gen.layers.example import Example
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph

MAX_COUNT = 2**31 - 1
"""The most elements a blob may have. Source: src/caffe/blob.cpp Blob::Reshape."""

REGISTRY: dict[str, LayerType] = {}


@dataclass(frozen=True)
class Arity:
    """How many bottoms or tops a layer takes: from `low` to `high`, `high` None meaning any number."""

    low: int
    high: int | None = None

    def allows(self, count: int) -> bool:
        return self.low <= count and (self.high is None or count <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.low} or more"
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


def exactly(count: int) -> Arity:
    return Arity(count, count)


ONE = exactly(1)
ANY = Arity(0)
CONSTANT_ZERO = FillerParameter()
"""The filler of whatever names none."""


@dataclass(frozen=True)
class BlobSpec:
    """One learned array of a layer: its shape, how it is filled, and whether the solver learns it.

    A `statistic` (BN's moving averages) is carried along by the layer itself; it is not counted as a parameter.
    """

    shape: Shape
    filler: FillerParameter = CONSTANT_ZERO
    statistic: bool = False


class LayerType:
    """Base of all layer types. Docstring of each: what it does, Source, Shape, Blobs, Differs."""

    type: ClassVar[str] = ""
    """Name in prototxts."""
    params: ClassVar[tuple[Kind[Message], ...]] = ()
    """The parameter messages it reads, its own first."""
    bottoms: ClassVar[Arity] = ONE
    tops: ClassVar[Arity] = ONE
    same_count: ClassVar[bool] = False
    """As many tops as bottoms."""
    loss: ClassVar[bool] = False
    """Its first top has loss weight 1 unless told otherwise. Source: include/caffe/layers/loss_layer.hpp."""
    data: ClassVar[bool] = False
    """It makes blobs out of nothing: a data layer or an input."""
    labels: ClassVar[bool] = False
    """A data layer whose second top is one label for each image."""
    sized_by_data: ClassVar[bool] = False
    """The shape of its tops depends on the numbers it is given, as the count of detections; `shapes` tells the rank."""
    tolerance: ClassVar[float] = 1e-5
    """How far torch and ONNX may be from Caffe, relative to the blob's largest value; a looser one needs a `why`."""
    why: ClassVar[str] = ""
    examples: ClassVar[tuple[Example, ...]] = ()

    def __init_subclass__(cls) -> None:
        if not cls.type:
            return  # an abstract layer type, base of several
        if cls.type in REGISTRY:
            raise NetError(f"layer type {cls.type!r} is registered twice, by {cls.__name__}")
        REGISTRY[cls.type] = cls()

    def of(self, layer: Layer) -> LayerType:
        """Return the layer type for this layer: self, or another one that a parameter selects, as in Python layers."""
        return self

    def assumed(self, layer: Layer) -> str:
        """Return what a conversion takes for granted because the net does not tell it, or an empty text."""
        return ""

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        """Return the shape of each top. Called with the right number of bottoms; raises `layer.error(…)`."""
        raise NotImplementedError

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        """Return the learned arrays by role, in the order of the .caffemodel."""
        return {}

    def macs(self, layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """Return the multiply-accumulates, each counted once; biases and elementwise work are not counted."""
        return 0

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        """Return a module whose forward takes the bottoms and returns the top, or a tuple of the tops."""
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): it has no PyTorch form")

    def shares_memory(self, layer: Layer) -> bool:
        """Whether Caffe gives the tops the memory of the first bottom, or of a learned blob, instead of a copy."""
        return False

    def overwritten(self, layer: Layer, bottoms: Sequence[Shape]) -> tuple[str, ...]:
        """Return the roles whose gradient Caffe writes anew in each backward pass; of iter_size the last counts."""
        return ()

    def stored_roles(self, layer: Layer, shapes: Sequence[Shape]) -> tuple[str, ...] | None:
        """Return the roles of a file's blobs in its order, told by their shapes; None: those of `blobs`, as declared.

        For types that forks store in several orders. Raises WeightsError where the shapes cannot tell.
        """
        return None

    def load(self, module: nn.Module, blobs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Put the layer's blobs, float32 by role, into the module: by default each into the tensor of that name."""
        import torch

        for role, blob in blobs.items():
            target = getattr(module, role)
            with torch.no_grad():
                target.copy_(torch.from_numpy(blob.reshape(tuple(target.shape)).copy()))

    def dump(self, module: nn.Module, roles: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """The inverse of `load`: the blobs of these roles, float32, in the module's shapes."""
        return {role: getattr(module, role).detach().cpu().float().numpy() for role in roles}

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        """Write the layer as ONNX nodes on the named bottoms; return the name of the top, or of each."""
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): it has no ONNX form")

    def affine(
        self, layer: Layer, blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
        """Return (scale, shift), a number per channel of axis 1 each, where the layer is scale·x + shift in TEST.

        None where it is not: then it cannot be folded into the layer before it.
        """
        return None

    def infer(self, layer: Layer, bottoms: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the top shapes after checking arity, fields and sizes; the errors name the layer."""
        self.check_arity(layer)
        self.check_fields(layer)
        shapes = tuple(self.shapes(layer, bottoms))
        for shape in shapes:
            if any(dim < 0 for dim in shape):
                raise layer.error(f"its top would have shape {show(shape)}; the bottom is {show_all(bottoms)}")
            if math.prod(shape) > MAX_COUNT:
                raise layer.error(f"its top of shape {show(shape)} has more than 2^31-1 elements, Caffe's limit")
        return shapes

    def check_arity(self, layer: Layer) -> None:
        """Raise an error where the layer has the wrong number of bottoms or tops."""
        for what, arity, got in (("bottom", self.bottoms, layer.bottoms), ("top", self.tops, layer.tops)):
            if not arity.allows(len(got)):
                raise layer.error(f"it takes {arity} {what}{'' if str(arity) == '1' else 's'}, not {len(got)}")
        if self.same_count and len(layer.bottoms) != len(layer.tops):
            raise layer.error(f"it takes as many tops as bottoms, not {len(layer.bottoms)} and {len(layer.tops)}")

    def check_fields(self, layer: Layer) -> None:
        """Raise an error where the layer's own parameters hold a field that is not known, and so not obeyed."""
        for kind in self.params:
            for path, extra in layer.get(kind).walk_extras(f"{kind.field}."):
                raise UnsupportedError(
                    f"layer {layer.name!r} ({layer.type}): line {extra.line}: {path} is not understood ({extra.reason})"
                )


def per_bottom(module: nn.Module, bottoms: Sequence[Shape]) -> nn.Module:
    """Let a stock module of one input take several bottoms, each to a top of its own through the same weights."""
    if len(bottoms) == 1:
        return module
    stock = type(module)

    def forward(self: nn.Module, *inputs: Any) -> tuple[Any, ...]:
        return tuple(stock.forward(self, one) for one in inputs)

    module.__class__ = type(stock.__name__, (stock,), {"forward": forward})
    return module


def show_all(shapes: Sequence[Shape]) -> str:
    """Return the shapes as an error text lists them: `1x3x8x8 and 1x3x7x7`."""
    return " and ".join(map(show, shapes)) or "nothing"
