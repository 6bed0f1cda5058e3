"""A small builder of ONNX graphs. Layer types use its interface `prototxt_gen.layers.onnx_graph.OnnxGraph`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Shape

Array = np.ndarray[Any, Any]
_MAX_COMPARED_SIZE = 2**20
"""Arrays of at most this many numbers are compared by content, larger ones by memory address only."""


class Graph:
    """An ONNX graph under construction. An input of a node is a name, or an array that becomes an initializer.

    Arrays are not copied: large ones are views of the mapped weights file.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, Array] = {}
        self.scope = ""
        """Names of new nodes and values begin with it: the name of the current layer."""
        self.layer_blobs: Mapping[str, Array] = {}
        """The learned blobs of the current layer by role."""
        self.roles: dict[str, dict[str, str]] = {}
        """The initializer that holds a blob, by layer name and role."""
        self._shapes: dict[str, Shape] = {}
        self._names: set[str] = set()

    @property
    def initializers(self) -> list[onnx.TensorProto]:
        """The arrays as ONNX tensors. This copies them."""
        return [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in self.arrays.items()]

    def name(self, hint: str) -> str:
        """Return a name that no value and no node has yet: the scope, `hint`, and a number if needed."""
        stem = f"{self.scope}/{hint}" if self.scope else hint
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

    def subgraph(self, hint: str) -> Graph:
        """Return a new empty graph of the same opset, for the body of a Loop or a Scan. Its scope is a new name."""
        graph = Graph(self.opset)
        graph.scope = self.name(hint)
        return graph

    def reserve(self, name: str) -> None:
        """Reserve a name for a value that is added later."""
        self._names.add(name)

    def shape(self, value: str) -> Shape:
        """Return the shape of a value for the input shapes that the net was read with.

        Raises NetError if the shape is unknown. The batch size may be another one when the model runs.
        """
        if value not in self._shapes:
            raise NetError(f"the shape of ONNX value {value!r} is not known")
        return self._shapes[value]

    def set_shape(self, value: str, shape: Shape) -> None:
        """Record the shape of a value."""
        self._shapes[value] = shape

    def const(self, array: Array | Sequence[int] | Sequence[float] | float, hint: str = "const") -> str:
        """Add an initializer; return its name. Integers become int64, other numbers float32; an array keeps its type.

        An array that is a blob of the current layer is recorded in `roles`.
        """
        values = array if isinstance(array, np.ndarray) else np.asarray(array)
        if not isinstance(array, np.ndarray):
            values = values.astype(np.int64 if values.dtype.kind in "iu" else np.float32)
        role = self._find_role(values) if isinstance(array, np.ndarray) else None
        name = self.name(role or hint)
        if role is not None:
            self.roles.setdefault(self.scope, {})[role] = name
        self.arrays[name] = values
        self._shapes[name] = values.shape
        return name

    def _find_role(self, array: Array) -> str | None:
        """Return the role of the current layer's blob that has the numbers of this array; None if there is none."""
        known = self.roles.get(self.scope, {})
        roles = (r for r, blob in self.layer_blobs.items() if r not in known and has_same_numbers(array, blob))
        return next(roles, None)

    def ops(self, kind: str, *inputs: str | Array | None, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node of operator `kind`; return the names of its outputs. None skips an optional input."""
        names = ["" if i is None else i if isinstance(i, str) else self.const(i) for i in inputs]
        tops = [self.name(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, tops, self.name(f"{kind}_node"), **attributes))
        return tuple(tops)

    def op(self, kind: str, *inputs: str | Array | None, **attributes: Any) -> str:
        """Add a node of operator `kind` with one output; return the output's name. None skips an optional input."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]


def has_same_numbers(array: Array, other: Array) -> bool:
    """Whether two arrays have the same numbers in the same order.

    They do if they share their memory or, for arrays that are not large, if their bytes are equal.
    """
    if array.size != other.size or array.dtype != other.dtype:
        return False
    if array.flags.c_contiguous and other.flags.c_contiguous and _memory_address(array) == _memory_address(other):
        return True
    return array.size <= _MAX_COMPARED_SIZE and array.tobytes() == other.tobytes()


def _memory_address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
