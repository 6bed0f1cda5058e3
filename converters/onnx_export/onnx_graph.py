"""A small builder of ONNX graphs. Layer types see it as `prototxt_gen.layers.onnx_graph.OnnxGraph`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Shape

Array = np.ndarray[Any, Any]
_SMALL = 2**20
"""Up to so many numbers, an array that was copied is known again by what it holds."""


class Graph:
    """Nodes and initializers in the making. An input of a node is a name, or an array that becomes an initializer.

    Arrays are held as they come, views of a mapped file among them, and never copied here.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, Array] = {}
        self.scope = ""
        """The layer being written: names of nodes and values begin with it."""
        self.learned: Mapping[str, Array] = {}
        """The blobs of that layer by role."""
        self.roles: dict[str, dict[str, str]] = {}
        """The initializer that holds a blob, by layer and role."""
        self._shapes: dict[str, Shape] = {}
        self._names: set[str] = set()

    @property
    def initializers(self) -> list[onnx.TensorProto]:
        """The arrays as ONNX tensors, copied."""
        return [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in self.arrays.items()]

    def name(self, hint: str) -> str:
        """Return a name no value or node has yet."""
        stem = f"{self.scope}/{hint}" if self.scope else hint
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def subgraph(self, hint: str) -> Graph:
        """Return a new empty graph of the same opset, for the body of a Loop or a Scan. Its scope is a new name."""
        made = Graph(self.opset)
        made.scope = self.name(hint)
        return made

    def reserve(self, name: str) -> None:
        """Keep a name for a value that is still to come."""
        self._names.add(name)

    def shape(self, value: str) -> Shape:
        """Return the shape a value has for the shapes the net was read with; its batch may vary when it runs."""
        if value not in self._shapes:
            raise NetError(f"the shape of ONNX value {value!r} is not known")
        return self._shapes[value]

    def set_shape(self, value: str, shape: Shape) -> None:
        self._shapes[value] = shape

    def const(self, array: Array | Sequence[int] | Sequence[float] | float, hint: str = "const") -> str:
        """Add an initializer: whole numbers become int64, others float32; an array keeps its type."""
        made = array if isinstance(array, np.ndarray) else np.asarray(array)
        if not isinstance(array, np.ndarray):
            made = made.astype(np.int64 if made.dtype.kind in "iu" else np.float32)
        role = self._role(made) if isinstance(array, np.ndarray) else None
        name = self.name(role or hint)
        if role is not None:
            self.roles.setdefault(self.scope, {})[role] = name
        self.arrays[name] = made
        self._shapes[name] = made.shape
        return name

    def _role(self, array: Array) -> str | None:
        """Return the role of the layer's blob that an array is, in whatever shape; None where it is none of them."""
        taken = self.roles.get(self.scope, {})
        same = (role for role, blob in self.learned.items() if role not in taken and same_numbers(array, blob))
        return next(same, None)

    def ops(self, kind: str, *inputs: str | Array | None, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node and return the names of its outputs. None skips an optional input."""
        named = ["" if i is None else i if isinstance(i, str) else self.const(i) for i in inputs]
        tops = [self.name(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, named, tops, self.name(f"{kind}_node"), **attributes))
        return tuple(tops)

    def op(self, kind: str, *inputs: str | Array | None, **attributes: Any) -> str:
        """Add a node with one output and return its name."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]


def same_numbers(one: Array, other: Array) -> bool:
    """Whether two arrays hold the same numbers in the same order: one memory, or, if not large, equal bytes."""
    if one.size != other.size or one.dtype != other.dtype:
        return False
    if one.flags.c_contiguous and other.flags.c_contiguous and _address(one) == _address(other):
        return True
    return one.size <= _SMALL and one.tobytes() == other.tobytes()


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
