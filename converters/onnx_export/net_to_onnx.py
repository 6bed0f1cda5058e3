"""Caffe to ONNX in memory: lowers a net and its weights to one checked ONNX model, with the blob names of Caffe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx
from onnx import helper

from converters.common.names import NAMES_KEY, onnx_names, unused_name, valid_utf8
from converters.onnx_export.dynamic_axes import OnnxShape, dynamic_shapes
from converters.onnx_export.onnx_graph import Graph
from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Value
from prototxt_gen.net.lowering_checks import computed_outputs, is_input_layer, lower_all, net_inputs
from prototxt_gen.passes.bn_fold import fold_normalisation
from prototxt_gen.weights import Weights

OPSETS = range(18, 24)
DEFAULT_OPSET = 20
IR_VERSION = 10
PROTOTXT_KEY, ROLES_KEY = "caffe.prototxt", "caffe.blobs"
"""Metadata keys: the net as prototxt, and the initializer that holds each blob (by layer name and role, as JSON)."""


@dataclass(frozen=True)
class OnnxNet:
    """A net as an ONNX graph that is not written yet; `onnx_writer.save_onnx` writes it.

    Large arrays are still views of the mapped weights file. `inputs` and `outputs`: shapes by name.
    """

    graph: Graph
    analysis: Analysis
    inputs: Mapping[str, OnnxShape]
    outputs: Mapping[str, OnnxShape]
    names: Mapping[Value, str]
    """The ONNX name of every blob that the graph still has; folding removes some."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def model(self, with_weights: bool = True) -> onnx.ModelProto:
        """Return the ONNX model.

        `with_weights=False` declares float arrays as inputs instead of storing them, which is enough for checking
        types and shapes.
        """
        graph = self.graph
        stored = {name: array for name, array in graph.arrays.items() if with_weights or array.dtype.kind != "f"}
        declared = {name: array.shape for name, array in graph.arrays.items() if name not in stored}
        storage = Graph(graph.opset)
        storage.arrays = stored
        graph_proto = helper.make_graph(
            graph.nodes,
            valid_utf8(self.analysis.net.name) or "net",
            [_float_value_info(name, shape) for name, shape in [*self.inputs.items(), *declared.items()]],
            [_float_value_info(name, shape) for name, shape in self.outputs.items()],
            storage.initializers,
        )
        model = helper.make_model(
            graph_proto,
            producer_name="prototxt-gen",
            opset_imports=[helper.make_opsetid("", graph.opset)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(self.metadata))
        return model

    def check(self) -> None:
        """Run ONNX's checker and its strict shape inference. Raises NetError if they find an error."""
        try:
            onnx.checker.check_model(self.model(with_weights=False), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise NetError(f"{self.analysis.net.name}: the ONNX checker refuses the model: {error}") from error


def _float_value_info(name: str, shape: OnnxShape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))


def lower_to_onnx(
    analysis: Analysis,
    weights: Weights,
    *,
    opset: int = DEFAULT_OPSET,
    fold_bn: bool = True,
    dynamic_size: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> OnnxNet:
    """Lower a net of one phase, with all shapes known, to ONNX.

    `opset`: 18 to 23. `fold_bn`: fold batch normalisation into the layer above where possible. The batch is dynamic if
    nothing in the graph depends on it (a Reshape to a fixed batch does). `dynamic_size`: height and width are dynamic
    too. `metadata`: further entries for the model. Raises UnsupportedError, which lists every layer that has no exact
    ONNX form, and NetError if ONNX's checker refuses the model.
    """
    if opset not in OPSETS:
        raise UnsupportedError(f"opset {opset}: there are {OPSETS.start} to {OPSETS.stop - 1}")
    if fold_bn:
        analysis, weights = fold_normalisation(analysis, weights)
    lowering = _NetLowering(analysis, weights, opset)

    def lower_graph(other: Analysis) -> Graph:
        return _NetLowering(other, weights, opset).finished_graph()

    outputs = lowering.name_outputs()
    shapes, remarks = dynamic_shapes(analysis, lowering.graph, lower_graph, dynamic_size)
    net = OnnxNet(
        lowering.graph,
        analysis,
        {lowering.names[value]: shapes[value] for value in lowering.inputs},
        {name: shapes[value] for value, name in outputs.items()},
        lowering.names,
        {**_net_metadata(analysis, lowering.graph), **lowering.names_metadata(), **(metadata or {})},
        tuple(remarks),
    )
    net.check()
    return net


def _net_metadata(analysis: Analysis, graph: Graph) -> dict[str, str]:
    """Return the metadata that is needed to get a .caffemodel back from the ONNX file."""
    from prototxt_gen.net.render import net_text

    return {PROTOTXT_KEY: valid_utf8(net_text(analysis.net)), ROLES_KEY: json.dumps(graph.roles)}


class _NetLowering:
    """Lowers a net layer by layer. `names` holds the ONNX name of each value."""

    def __init__(self, analysis: Analysis, weights: Weights, opset: int) -> None:
        self.graph, self.analysis, self.weights = Graph(opset), analysis, weights
        self.inputs = net_inputs(analysis.net)
        self._last_values = {value.blob: value for value in analysis.net.values()}
        self._input_blobs = {value.blob for value in self.inputs}
        self._blob_names = onnx_names(self._last_values)
        self.names: dict[Value, str] = {}
        for value in self.inputs:
            self._set_name(value, self._blob_names[value.blob])
        for name in self._blob_names.values():
            self.graph.reserve(name)
        computed = tuple(row for row in analysis.rows if not is_input_layer(row.layer))
        lower_all(replace(analysis, rows=computed), self._lower_layer, "ONNX")

    def finished_graph(self) -> Graph:
        """Return the graph after naming its outputs."""
        self.name_outputs()
        return self.graph

    def _lower_layer(self, row: Row) -> None:
        layer = row.layer
        self.graph.scope, self.graph.layer_blobs = valid_utf8(layer.name), self.weights.of(layer.name)
        first_node = len(self.graph.nodes)
        bottoms = [self.names[value] for value in layer.bottoms if value in self.names]
        if len(bottoms) != len(layer.bottoms):
            raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): a bottom comes from a layer that is refused")
        tops = layers.layer_type_of(layer).onnx(self.graph, layer, bottoms, self.graph.layer_blobs)
        for value, top in zip(layer.tops, [tops] if isinstance(tops, str) else tops, strict=False):
            self._name_top(value, top, first_node)

    def _name_top(self, value: Value, top: str, first_node: int) -> None:
        """Rename the ONNX value `top` to its blob's name; a layer that returns its bottom has added no node.

        `first_node`: index of the first node of this layer.
        """
        blob_name = self._name_of(value)
        layer_nodes = self.graph.nodes[first_node:]
        is_computed_here = any(top in node.output for node in layer_nodes)
        if is_computed_here and top not in self.names.values():
            for node in layer_nodes:
                _rename_in_node(node, top, blob_name)
            top = blob_name
        self._set_name(value, top)

    def _name_of(self, value: Value) -> str:
        """Return the ONNX name for a computed value: that of its blob, if no layer overwrites it and it is no input."""
        name = self._blob_names[value.blob]
        if self._last_values.get(value.blob) == value and value.blob not in self._input_blobs:
            return name
        return unused_name(f"{name}:{value.version}", self._blob_names.values())

    def names_metadata(self) -> dict[str, str]:
        """Return the metadata that tells ONNX names which are not those of the blobs; see `names.stored_names`."""
        last = {value.blob: self.names[value] for value in self._last_values.values() if value in self.names}
        inputs = {value.blob: self.names[value] for value in self.inputs}
        other = {
            kind: {blob: name for blob, name in names.items() if blob != name}
            for kind, names in (("inputs", inputs), ("blobs", last))
        }
        return {NAMES_KEY: json.dumps(other)} if any(other.values()) else {}

    def _set_name(self, value: Value, name: str) -> None:
        self.names[value] = name
        self.graph.set_shape(name, self.analysis.shapes[value])

    def name_outputs(self) -> dict[Value, str]:
        """Return the names of the outputs.

        An output that is an input or another output gets an Identity node. Raises UnsupportedError if there is none.
        """
        names: dict[Value, str] = {}
        for value in computed_outputs(self.analysis.net):
            name = self.names[value]
            if name != self._name_of(value):
                self.graph.scope, self.graph.layer_blobs = "", {}
                copy = self.graph.op("Identity", name)
                name = self._name_of(value)
                _rename_in_node(self.graph.nodes[-1], copy, name)
                self.names[value] = name
            names[value] = name
        if not names:
            raise UnsupportedError(f"{self.analysis.net.name}: the net has no output: no layer computes a blob")
        return names


def _rename_in_node(node: onnx.NodeProto, old: str, new: str) -> None:
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            if name == old:
                names[index] = new
