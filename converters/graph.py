"""A small writer of ONNX graphs, as the rooms' `onnx` methods see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from prototxt_gen.errors import NetError
from prototxt_gen.ir import Shape

Array = np.ndarray[Any, Any]


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
        self._shapes: dict[str, Shape] = {}
        self._names: set[str] = set()

    @property
    def initializers(self) -> list[onnx.TensorProto]:
        """The arrays as ONNX tensors, copied."""
        return [numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name) for name, array in self.arrays.items()]

    def name(self, hint: str) -> str:
        """Return a name no value or node has yet."""
        stem = f"{self.scope}/{hint}" if self.scope else hint
        name, count = stem, 1
        while name in self._names:
            count += 1
            name = f"{stem}_{count}"
        self._names.add(name)
        return name

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
        name = self.name(hint)
        self.arrays[name] = made
        self._shapes[name] = made.shape
        return name

    def ops(self, kind: str, *inputs: str | Array | None, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node and return the names of its outputs. None skips an optional input."""
        named = ["" if i is None else i if isinstance(i, str) else self.const(i) for i in inputs]
        tops = [self.name(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, named, tops, self.name(f"{kind}_node"), **attributes))
        return tuple(tops)

    def op(self, kind: str, *inputs: str | Array | None, **attributes: Any) -> str:
        """Add a node with one output and return its name."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]
