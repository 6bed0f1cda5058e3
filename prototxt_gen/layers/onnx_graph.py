"""What a layer type sees of the ONNX graph that it writes its nodes to.

The graph itself is `converters.onnx_export.onnx_graph.Graph`. It is declared here as an interface, so that layer types
do not import `converters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from prototxt_gen.ir import Shape

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]


class OnnxGraph(Protocol):
    """An ONNX graph under construction. Values are named by strings; an array given as an input becomes a constant."""

    opset: int
    """The version of ONNX's operator set."""
    scope: str
    """Names of new nodes and values begin with it: the layer's name, or that of a subgraph."""
    nodes: list[onnx.NodeProto]

    @property
    def initializers(self) -> list[onnx.TensorProto]:
        """The constants of the graph as ONNX tensors."""

    def op(self, kind: str, *inputs: str | Array | None, **attributes: Any) -> str:
        """Add a node of operator `kind` with one output; return the output's name. None skips an optional input."""

    def ops(self, kind: str, *inputs: str | Array | None, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node of operator `kind`; return the names of its outputs."""

    def const(self, array: Array | Sequence[int] | Sequence[float] | float, hint: str = "const") -> str:
        """Add a constant; return its name. Integers become int64, other numbers float32; an array keeps its type."""

    def shape(self, value: str) -> Shape:
        """Return the shape of a value for the input shapes that the net was read with.

        Raises NetError where the shape is unknown. The batch size may be another one when the model runs.
        """

    def set_shape(self, value: str, shape: Shape) -> None:
        """Record the shape of a value."""

    def name(self, hint: str) -> str:
        """Return a name that no value and no node has yet."""

    def subgraph(self, hint: str) -> OnnxGraph:
        """Return a new empty graph of the same opset, for the body of a Loop or a Scan. Its scope is a new name."""
