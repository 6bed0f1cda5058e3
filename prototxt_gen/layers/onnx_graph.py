"""The interface of the ONNX graph to which layer types add their nodes.

The graph itself is `converters.onnx_export.onnx_graph.Graph`. This interface exists so that layer types do not import
`converters`.
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
    """An ONNX graph under construction. Values have names; an array given as an input of a node becomes a constant."""

    opset: int
    """Version of ONNX's operator set."""
    scope: str
    """Prefix of the names of new nodes and values: the name of a layer or of a subgraph."""
    nodes: list[onnx.NodeProto]
    """Nodes added so far."""

    @property
    def initializers(self) -> list[onnx.TensorProto]:
        """The constants of the graph as ONNX tensors."""

    def op(self, kind: str, *inputs: str | Array | None, **attributes: Any) -> str:
        """Add a node of operator `kind` with one output; return the output's name. None skips an optional input."""

    def ops(self, kind: str, *inputs: str | Array | None, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node of operator `kind` with `outputs` outputs; return their names."""

    def const(self, array: Array | Sequence[int] | Sequence[float] | float, hint: str = "const") -> str:
        """Add a constant; return its name. Integers become int64, other numbers float32; an array keeps its type."""

    def shape(self, value: str) -> Shape:
        """Return the shape of a value, computed from the input shapes of the net.

        Raises NetError if the shape is unknown. The model may later be run with another batch size.
        """

    def set_shape(self, value: str, shape: Shape) -> None:
        """Record the shape of a value."""

    def name(self, hint: str) -> str:
        """Return a new name that contains `hint` and that no value and no node has yet."""

    def subgraph(self, hint: str) -> OnnxGraph:
        """Return a new empty graph of the same opset, for the body of a Loop or a Scan.

        Its scope is a new name that contains `hint`.
        """
