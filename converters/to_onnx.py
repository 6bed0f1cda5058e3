"""Net and weights to ONNX: one model, checked, its blobs named as Caffe names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import onnx
from onnx import helper

from converters.graph import Graph
from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row, analyse
from prototxt_gen.errors import NetError, UnsupportedError
from prototxt_gen.ir import Shape, Value
from prototxt_gen.lowering import lower_all
from prototxt_gen.passes.fold import fold
from prototxt_gen.weights import Weights

OPSETS = range(18, 24)
DEFAULT_OPSET = 20
IR_VERSION = 10

Dims = tuple[int | str, ...]


@dataclass(frozen=True)
class OnnxNet:
    """A net as an ONNX graph whose big arrays are still where they came from; `converters.onnx_file` writes it."""

    graph: Graph
    analysis: Analysis
    inputs: Mapping[str, Dims]
    outputs: Mapping[str, Dims]
    names: Mapping[Value, str]
    """The ONNX name of every blob that is still there."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def model(self, with_weights: bool = True) -> onnx.ModelProto:
        """Return the model. Without weights, arrays of floats stand as inputs: enough to check types and shapes."""
        g = self.graph
        light = {n: a for n, a in g.arrays.items() if with_weights or a.dtype.kind != "f"}
        heavy = {n: a.shape for n, a in g.arrays.items() if n not in light}
        made = Graph(g.opset)
        made.arrays = light
        graph = helper.make_graph(
            g.nodes,
            self.analysis.net.name or "net",
            [_info(n, d) for n, d in [*self.inputs.items(), *heavy.items()]],
            [_info(n, d) for n, d in self.outputs.items()],
            made.initializers,
        )
        model = helper.make_model(
            graph,
            producer_name="prototxt-gen",
            opset_imports=[helper.make_opsetid("", g.opset)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(self.metadata))
        return model

    def check(self) -> None:
        """Run ONNX's checker and its strict shape inference; NetError where the graph is not right."""
        try:
            onnx.checker.check_model(self.model(with_weights=False), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise NetError(f"{self.analysis.net.name}: the ONNX model does not check: {error}") from error


def _info(name: str, dims: Dims) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(dims))


def to_onnx(
    analysis: Analysis,
    weights: Weights,
    *,
    opset: int = DEFAULT_OPSET,
    fold_bn: bool = True,
    dynamic_size: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> OnnxNet:
    """Lower a net of one phase, all shapes known, to ONNX.

    The batch is dynamic wherever the net allows it (a Reshape to a fixed batch does not); with `dynamic_size` the
    height and width too. One UnsupportedError lists every layer that has no exact ONNX form.
    """
    if opset not in OPSETS:
        raise UnsupportedError(f"opset {opset}: there are {OPSETS.start} to {OPSETS.stop - 1}")
    if fold_bn:
        analysis, weights = fold(analysis, weights)
    lowering = _Lowering(analysis, weights, opset)
    varying = _varying(analysis, lowering.sources, dynamic_size)
    made = OnnxNet(
        lowering.graph,
        analysis,
        {value.blob: varying[value] for value in lowering.sources},
        lowering.outputs(varying),
        lowering.names,
        metadata or {},
    )
    made.check()
    return made


class _Lowering:
    """Lowers layer by layer, keeping which ONNX value each blob is."""

    def __init__(self, analysis: Analysis, weights: Weights, opset: int) -> None:
        self.graph, self.analysis, self.weights = Graph(opset), analysis, weights
        self.sources = _sources(analysis)
        self._final = {value.blob: value for value in analysis.net.values()}
        self._inputs = {value.blob for value in self.sources}
        self.names: dict[Value, str] = {}
        for value in self.sources:
            self._name(value, value.blob)
        for blob in self._final:
            self.graph.reserve(blob)
        lower_all(replace(analysis, rows=tuple(r for r in analysis.rows if not _makes(r))), self._lower, "ONNX")

    def _lower(self, row: Row) -> None:
        layer = row.layer
        self.graph.scope = layer.name
        start = len(self.graph.nodes)
        bottoms = [self.names[value] for value in layer.bottoms if value in self.names]
        if len(bottoms) != len(layer.bottoms):
            raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): a bottom comes from a layer that is refused")
        made = layers.room(layer).onnx(self.graph, layer, bottoms, self.weights.of(layer.name))
        for value, top in zip(layer.tops, [made] if isinstance(made, str) else made, strict=False):
            self._take(value, top, start)

    def _take(self, value: Value, top: str, start: int) -> None:
        """Call the node's output by the blob's name; a layer that hands its bottom through adds no node."""
        last = self._final.get(value.blob) == value and value.blob not in self._inputs
        wanted = value.blob if last else f"{value.blob}:{value.version}"
        made_here = [node for node in self.graph.nodes[start:] if top in node.output]
        if made_here and top not in self.names.values():
            for node in self.graph.nodes[start:]:
                _rename(node, top, wanted)
            top = wanted
        self._name(value, top)

    def _name(self, value: Value, name: str) -> None:
        self.names[value] = name
        self.graph.set_shape(name, self.analysis.shapes[value])

    def outputs(self, varying: Mapping[Value, Dims]) -> dict[str, Dims]:
        """Return the outputs' names and dims; one that is an input or another output gets a node of its own."""
        found: dict[str, Dims] = {}
        for value in self.analysis.net.outputs:
            if value in self.sources or value not in self.names:
                continue  # an input, or a label that no layer of this phase takes
            name = self.names[value]
            if name != value.blob and value.blob not in self._inputs:
                self.graph.scope = ""
                made = self.graph.op("Identity", name)
                _rename(self.graph.nodes[-1], made, value.blob)
                self.names[value] = name = value.blob
            found[name] = varying[value]
        return found


def _rename(node: onnx.NodeProto, old: str, new: str) -> None:
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            if name == old:
                names[index] = new


def _makes(row: Row) -> bool:
    return layers.room(row.layer).data


def _sources(analysis: Analysis) -> list[Value]:
    """Return the values that come from outside: inputs, and tops of data layers that some layer takes."""
    taken = {value for layer in analysis.net.layers for value in layer.bottoms}
    tops = [value for row in analysis.rows if _makes(row) for value in row.layer.tops if value in taken]
    return [*analysis.net.inputs, *tops]


def _varying(analysis: Analysis, sources: list[Value], dynamic_size: bool) -> dict[Value, Dims]:
    """Return the dims of every value, named where they vary with the batch, or the image size.

    What varies is found by inferring the shapes again for another batch: a dim that follows it is dynamic.
    """
    dims: dict[Value, list[int | str]] = {value: list(shape) for value, shape in analysis.shapes.items()}
    changes = [(0, "N")] + ([(2, "H"), (3, "W")] if dynamic_size else [])
    for axis, letter in changes:
        for value, shape in (_with_axis(analysis, sources, axis) or {}).items():
            for index, (old, new) in enumerate(zip(analysis.shapes.get(value, shape), shape, strict=True)):
                if old != new:
                    dims[value][index] = letter if value in sources else f"{letter}_{value.blob}_{index}"
    batch = {value.blob: letter for value in sources for letter in dims[value][:1] if isinstance(letter, str)}
    for value, found in dims.items():
        if found and isinstance(found[0], str) and batch and analysis.shapes[value][0] == _batch(analysis, sources):
            found[0] = "N"
    for row in analysis.rows:
        if layers.room(row.layer).sized_by_data:
            for value in row.layer.tops:
                dims[value] = [f"{value.blob}_{axis}" for axis in range(len(dims[value]))]
    return {value: tuple(found) for value, found in dims.items()}


def _batch(analysis: Analysis, sources: list[Value]) -> int:
    return analysis.shapes[sources[0]][0] if sources and analysis.shapes[sources[0]] else 1


def _with_axis(analysis: Analysis, sources: list[Value], axis: int) -> dict[Value, Shape] | None:
    """Return all shapes with one axis of the image inputs made larger, or None where the net does not allow it."""
    batch = _batch(analysis, sources)
    given: dict[str, Shape] = {}
    for value in sources:
        shape = analysis.shapes[value]
        grows = len(shape) > axis and (shape[0] == batch if axis == 0 else len(shape) == 4)
        more = 1 if axis == 0 else 32
        given[value.blob] = (*shape[:axis], shape[axis] + more, *shape[axis + 1 :]) if grows else shape
    again = analyse(analysis.net, given)
    return dict(again.shapes) if again.complete else None


def numpy_session(model: onnx.ModelProto, outputs: list[str] | None = None) -> Any:
    """Return an ONNX Runtime session on the CPU; RuntimeMissingError where it is not installed."""
    from prototxt_gen.errors import RuntimeMissingError

    try:
        import onnxruntime
    except ImportError:
        raise RuntimeMissingError("ONNX Runtime is not installed: pip install 'prototxt-gen[onnx]'") from None
    for name in outputs or []:
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
