"""Net and weights to ONNX: one model, checked, its blobs named as Caffe names them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx
from onnx import helper

from converters.onnx_export.dynamic_axes import Dims, dims_of
from converters.onnx_export.onnx_graph import Graph
from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Value
from prototxt_gen.net.lowering_checks import is_fed, lower_all, results, sources
from prototxt_gen.passes.bn_fold import fold
from prototxt_gen.weights import Weights

OPSETS = range(18, 24)
DEFAULT_OPSET = 20
IR_VERSION = 10
PROTOTXT_KEY, ROLES_KEY = "caffe.prototxt", "caffe.blobs"
"""Metadata: the net that the model is, as prototxt, and which initializer is which of its blobs."""


@dataclass(frozen=True)
class OnnxNet:
    """A net as an ONNX graph. Its large arrays are still views of the weights file; `onnx_writer` writes the model."""

    graph: Graph
    analysis: Analysis
    inputs: Mapping[str, Dims]
    outputs: Mapping[str, Dims]
    names: Mapping[Value, str]
    """The ONNX name of every blob that is still there."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def model(self, with_weights: bool = True) -> onnx.ModelProto:
        """Return the model. Without weights, arrays of floats stand as inputs: enough to check types and shapes."""
        g = self.graph
        light = {n: a for n, a in g.arrays.items() if with_weights or a.dtype.kind != "f"}
        heavy = {n: a.shape for n, a in g.arrays.items() if n not in light}
        made = Graph(g.opset)
        made.arrays = light
        graph = helper.make_graph(
            g.nodes,
            utf8(self.analysis.net.name) or "net",
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


def utf8(text: str) -> str:
    """Return a name as ONNX can hold it: bytes that are not UTF-8 become escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def lower(
    analysis: Analysis,
    weights: Weights,
    *,
    opset: int = DEFAULT_OPSET,
    fold_bn: bool = True,
    dynamic_size: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> OnnxNet:
    """Lower a net of one phase, all shapes known, to ONNX.

    The batch is dynamic wherever nothing in the graph depends on it (a Reshape to a fixed batch does); with
    `dynamic_size` the height and width too. One UnsupportedError lists every layer that has no exact ONNX form.
    """
    if opset not in OPSETS:
        raise UnsupportedError(f"opset {opset}: there are {OPSETS.start} to {OPSETS.stop - 1}")
    if fold_bn:
        analysis, weights = fold(analysis, weights)
    lowering = Lowering(analysis, weights, opset)

    def again(other: Analysis) -> Graph:
        return Lowering(other, weights, opset).finished()

    outputs = lowering.output_names()
    dims, remarks = dims_of(analysis, lowering.graph, again, dynamic_size)
    made = OnnxNet(
        lowering.graph,
        analysis,
        {lowering.names[value]: dims[value] for value in lowering.sources},
        {name: dims[value] for value, name in outputs.items()},
        lowering.names,
        {**_described(analysis, lowering.graph), **(metadata or {})},
        tuple(remarks),
    )
    made.check()
    return made


def _described(analysis: Analysis, graph: Graph) -> dict[str, str]:
    from prototxt_gen.net.render import net_text

    return {PROTOTXT_KEY: utf8(net_text(analysis.net)), ROLES_KEY: json.dumps(graph.roles)}


class Lowering:
    """Lowers layer by layer, keeping which ONNX value each blob is."""

    def __init__(self, analysis: Analysis, weights: Weights, opset: int) -> None:
        self.graph, self.analysis, self.weights = Graph(opset), analysis, weights
        self.sources = sources(analysis.net)
        self._final = {value.blob: value for value in analysis.net.values()}
        if "" in self._final:
            raise UnsupportedError(f"{analysis.net.source}: a blob's name is empty, which in ONNX stands for no blob")
        self._inputs = {value.blob for value in self.sources}
        self.names: dict[Value, str] = {}
        for value in self.sources:
            self._name(value, utf8(value.blob))
        for blob in self._final:
            self.graph.reserve(utf8(blob))
        lower_all(replace(analysis, rows=tuple(r for r in analysis.rows if not is_fed(r.layer))), self._lower, "ONNX")

    def finished(self) -> Graph:
        """Return the graph with its outputs named."""
        self.output_names()
        return self.graph

    def _lower(self, row: Row) -> None:
        layer = row.layer
        self.graph.scope, self.graph.learned = utf8(layer.name), self.weights.of(layer.name)
        start = len(self.graph.nodes)
        bottoms = [self.names[value] for value in layer.bottoms if value in self.names]
        if len(bottoms) != len(layer.bottoms):
            raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): a bottom comes from a layer that is refused")
        made = layers.layer_type_of(layer).onnx(self.graph, layer, bottoms, self.graph.learned)
        for value, top in zip(layer.tops, [made] if isinstance(made, str) else made, strict=False):
            self._take(value, top, start)

    def _take(self, value: Value, top: str, start: int) -> None:
        """Call the node's output by the blob's name; a layer that hands its bottom through adds no node."""
        last = self._final.get(value.blob) == value and value.blob not in self._inputs
        wanted = utf8(value.blob if last else f"{value.blob}:{value.version}")
        made_here = [node for node in self.graph.nodes[start:] if top in node.output]
        if made_here and top not in self.names.values():
            for node in self.graph.nodes[start:]:
                _rename(node, top, wanted)
            top = wanted
        self._name(value, top)

    def _name(self, value: Value, name: str) -> None:
        self.names[value] = name
        self.graph.set_shape(name, self.analysis.shapes[value])

    def output_names(self) -> dict[Value, str]:
        """Return the outputs' names; one that is an input or another output gets a node of its own."""
        found: dict[Value, str] = {}
        for value in results(self.analysis.net):
            name = self.names[value]
            if name != utf8(value.blob) and value.blob not in self._inputs:
                self.graph.scope, self.graph.learned = "", {}
                made = self.graph.op("Identity", name)
                name = utf8(value.blob)
                _rename(self.graph.nodes[-1], made, name)
                self.names[value] = name
            found[value] = name
        if not found:
            raise UnsupportedError(f"{self.analysis.net.name}: the net has no output: no layer makes a blob")
        return found


def _rename(node: onnx.NodeProto, old: str, new: str) -> None:
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            if name == old:
                names[index] = new
