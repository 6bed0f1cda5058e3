"""The base class of layer types: one subclass holds everything about one Caffe layer type.

A layer type has no state. It imports torch, onnx and caffe only inside the methods that need them.
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
"""The greatest number of elements of a blob. Source: src/caffe/blob.cpp Blob::Reshape."""

REGISTRY: dict[str, LayerType] = {}
"""One instance of each registered subclass of `LayerType`, by the type's name in prototxts."""


@dataclass(frozen=True)
class Arity:
    """Number of bottoms or tops that a layer type takes: from `low` to `high`; any number from `low` if it is None."""

    low: int
    high: int | None = None

    def allows(self, count: int) -> bool:
        """Whether a layer may have this number of bottoms or tops."""
        return self.low <= count and (self.high is None or count <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.low} or more"
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


def exactly(count: int) -> Arity:
    """Return the arity of a layer type that takes `count` bottoms or tops, no more and no fewer."""
    return Arity(count, count)


ONE = exactly(1)
ANY = Arity(0)
CONSTANT_ZERO = FillerParameter()
"""Caffe's default filler: all elements 0."""


@dataclass(frozen=True)
class BlobSpec:
    """A learned blob of a layer: its shape, its filler, and whether the solver updates it.

    A `statistic`, such as the moving averages of BatchNorm, is updated by the layer itself instead of the solver. It is
    not counted as a parameter.
    """

    shape: Shape
    filler: FillerParameter = CONSTANT_ZERO
    statistic: bool = False


class LayerType:
    """Base class of all layer types.

    A subclass with a `type` registers itself. The first line of its docstring says what the layer computes; then follow
    the parts "Source:" (file and function of Caffe or a fork), "Shape:" (bottoms → tops), "Blobs:" (learned blobs) and
    "Differs:" (differences from PyTorch and ONNX, and from Caffe where it is not followed).
    """

    type: ClassVar[str] = ""
    """Name of the type in prototxts. Empty for abstract base classes, which are not registered."""
    params: ClassVar[tuple[Kind[Message], ...]] = ()
    """Parameter messages that the layer reads, the type's main message first."""
    bottoms: ClassVar[Arity] = ONE
    """Number of bottoms that the layer takes. Default: exactly one."""
    tops: ClassVar[Arity] = ONE
    """Number of tops that the layer takes. Default: exactly one."""
    fork_bottoms: ClassVar[Arity | None] = None
    """Numbers of bottoms below `bottoms` that some fork takes, in a form that is not known here."""
    same_count: ClassVar[bool] = False
    """Whether the layer needs as many tops as bottoms."""
    loss: ClassVar[bool] = False
    """Whether the first top has loss weight 1 by default. Source: include/caffe/layers/loss_layer.hpp."""
    data: ClassVar[bool] = False
    """Whether the layer is a source of blobs: a data layer or an Input layer."""
    labels: ClassVar[bool] = False
    """Whether the layer is a data layer whose second top is one label for each image."""
    sized_by_data: ClassVar[bool] = False
    """Whether top shapes depend on the values of the bottoms, as the number of detections does.

    If so, only the number of axes of what `shapes` returns can be relied on.
    """
    tolerance: ClassVar[float] = 1e-5
    """Greatest allowed difference of PyTorch and ONNX from Caffe, relative to the largest value of the blob.

    A tolerance above 1e-5 needs a reason in `why`.
    """
    why: ClassVar[str] = ""
    """Reason for a tolerance above 1e-5."""
    examples: ClassVar[tuple[Example, ...]] = ()
    """Cases on which the tests compare Caffe, PyTorch and ONNX."""

    def __init_subclass__(cls) -> None:
        if not cls.type:
            return  # an abstract base class of several types
        if cls.type in REGISTRY:
            raise NetError(f"layer type {cls.type!r} is registered twice, by {cls.__name__}")
        REGISTRY[cls.type] = cls()

    def of(self, layer: Layer) -> LayerType:
        """Return the layer type that handles this layer: self, or another one that a parameter selects.

        A Python layer, for example, is handled by the layer type of its class.
        """
        return self

    def assumed(self, layer: Layer) -> str:
        """Return what the user of a converted net must know about this layer, as a sentence, or an empty string.

        Examples are what a conversion assumes because the net does not specify it, and a form of the layer that is
        often left in a net by mistake.
        """
        return ""

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        """Return the shape of each top for these bottom shapes.

        It is called after `check_arity`, so the number of bottoms is right. Raises `layer.error(…)`, a NetError, if the
        parameters or the bottom shapes are not valid.
        """
        raise NotImplementedError

    def blobs(self, layer: Layer, bottoms: Sequence[Shape]) -> dict[str, BlobSpec]:
        """Return the learned blobs by role ("weight", "bias", …), in the order of the .caffemodel. Default: none."""
        return {}

    def macs(self, layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """Return the number of multiply-accumulate operations of one forward pass. Default: 0.

        Biases and elementwise operations are not counted.
        """
        return 0

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        """Return a PyTorch module whose forward takes the bottoms and returns the top, or a tuple of the tops.

        Raises UnsupportedError if the layer has no PyTorch form.
        """
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): it has no PyTorch form")

    def shares_memory(self, layer: Layer) -> bool:
        """Whether the tops share the memory of the first bottom, or of a learned blob, in Caffe. Default: False."""
        return False

    def overwritten(self, layer: Layer, bottoms: Sequence[Shape]) -> tuple[str, ...]:
        """Return the roles of the blobs whose gradient Caffe overwrites, instead of adding up over iter_size batches.

        The gradient of such a blob is that of the last batch. Default: no role.
        """
        return ()

    def stored_roles(self, layer: Layer, shapes: Sequence[Shape]) -> tuple[str, ...] | None:
        """Return the role of each blob of a weights file, found from the blobs' shapes; None means those of `blobs`.

        Types whose blobs have different orders in different forks override this. Raises WeightsError if the shapes
        match no known order.
        """
        return None

    def load(self, module: nn.Module, blobs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Copy blobs (float32 arrays by role) into the module. Default: each into the tensor named as the role."""
        import torch

        for role, blob in blobs.items():
            target = getattr(module, role)
            with torch.no_grad():
                target.copy_(torch.from_numpy(blob.reshape(tuple(target.shape)).copy()))

    def dump(self, module: nn.Module, roles: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Return the blobs of these roles from the module, as float32 arrays: the inverse of `load`."""
        return {role: getattr(module, role).detach().cpu().float().numpy() for role in roles}

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        """Add the layer's nodes to the ONNX graph `g`; return the name of the top, or a sequence of names.

        `bottoms` are the names of ONNX values; `blobs` are the learned blobs by role. Raises UnsupportedError if the
        layer has no ONNX form.
        """
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): it has no ONNX form")

    def affine(
        self, layer: Layer, blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
        """Return (scale, shift), each with C numbers, if the layer computes scale·x + shift per channel in TEST.

        Channels are axis 1. Such a layer can be folded into a convolution before it. Return None for other layers.
        """
        return None

    def infer(self, layer: Layer, bottoms: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the shape of each top, after checking the number of bottoms and tops, the fields and the sizes.

        Raises NetError or UnsupportedError, with the name of the layer.
        """
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
        """Raise NetError if the layer has a wrong number of bottoms or tops.

        Raises UnsupportedError if it has more than the type takes, or a number that `fork_bottoms` allows, since a fork
        may have such a form of the type.
        """
        for what, arity, got in (("bottom", self.bottoms, layer.bottoms), ("top", self.tops, layer.tops)):
            if arity.allows(len(got)):
                continue
            problem = f"it takes {arity} {what}{'' if str(arity) == '1' else 's'}, not {len(got)}"
            in_forks = what == "bottom" and self.fork_bottoms is not None and self.fork_bottoms.allows(len(got))
            if in_forks or len(got) > arity.low:
                raise UnsupportedError(
                    f"layer {layer.name!r} ({layer.type}): {problem}; if a fork has this form of the layer, it is not "
                    "known here"
                )
            raise layer.error(problem)
        if self.same_count and len(layer.bottoms) != len(layer.tops):
            raise layer.error(
                f"it takes as many tops as bottoms; it has {len(layer.bottoms)} bottoms and {len(layer.tops)} tops"
            )

    def check_fields(self, layer: Layer) -> None:
        """Raise UnsupportedError if the layer's parameter messages contain an unknown field."""
        for kind in self.params:
            for path, extra in layer.get(kind).walk_extras(f"{kind.field}."):
                raise UnsupportedError(
                    f"layer {layer.name!r} ({layer.type}): line {extra.line}: {path} is not understood ({extra.reason})"
                )


def per_bottom(module: nn.Module, bottoms: Sequence[Shape]) -> nn.Module:
    """Return the module, changed to return one top for each of several bottoms, all computed with the same weights.

    With one bottom the module stays as it is.
    """
    if len(bottoms) == 1:
        return module
    single = type(module)

    def forward(self: nn.Module, *inputs: Any) -> tuple[Any, ...]:
        return tuple(single.forward(self, bottom) for bottom in inputs)

    module.__class__ = type(single.__name__, (single,), {"forward": forward})
    return module


def show_all(shapes: Sequence[Shape]) -> str:
    """Return shapes as text for an error message: "1x3x8x8 and 1x3x7x7"."""
    return " and ".join(map(show, shapes)) or "nothing"
