"""The prototxts that the pycaffe backend gives to Caffe: the solver's own nets with replaced data layers.

Data, ImageData and HDF5Data become Python layers with the same name and tops (`pycaffe_layers.BatchFeed`), whose
position and random numbers we control. The train net ends in a `LossMeter`. Everything else is unchanged, so names,
shapes and order of the weights are those of the original net. Snapshots get the original layers back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from prototxt_gen import layers
from prototxt_gen.caffemodel.types import NewLayer, StoredLayer
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Layer, Net
from prototxt_gen.layers.utility.python import PythonParameter
from prototxt_gen.net.render import net_text, solver_text
from prototxt_gen.net.solver import Solver
from prototxt_gen.net.to_protobuf import encoded_params
from prototxt_gen.passes.bvlc_equivalents import proposal_for_our_caffe
from prototxt_gen.schema.caffe_proto import LayerParameter, SolverParameter
from prototxt_gen.schema.dialect import DIALECTS
from prototxt_gen.train.data_layer_batches import BATCHES_BY_TYPE, transform_of_layer
from prototxt_gen.train.data_shapes import is_augmented_data, locate_beside_solver, with_located_source

METER = "prototxt-gen/meter"
_MODULE = "prototxt_gen.train.pycaffe_layers"
_FIELDS_NOT_FOR_CAFFE = (
    "net", "train_net", "test_net", "train_state", "test_state", "test_iter", "test_interval", "test_initialization",
    "test_compute_loss", "display", "snapshot", "snapshot_format", "weights", "debug_info", "device_id",
)  # fmt: skip
"""Solver fields that the training loop handles itself, or that are passed to Caffe in another way."""
_STATELESS = frozenset({"DummyData", "Parameter"})
"""Types that produce blobs without reading a data set."""
_TYPES_WITHOUT_DATA_SET = frozenset({"Input", "MemoryData"})
_RECURRENT = frozenset({"LSTM", "RNN"})


@dataclass(frozen=True)
class DataLayerReplacement:
    """How data layers are replaced in the nets of one run: seed of the run, folder of the solver, threads per layer."""

    seed: int
    folder: Path
    threads: int

    def replacement_layer(self, layer: Layer, phase: str) -> Layer:
        """Return the Python layer that produces the same tops as `layer`."""
        fields = {
            "layer": layer_text(layer),
            "phase": phase,
            "seed": self.seed,
            "threads": self.threads,
            "folder": str(self.folder.absolute()),
        }
        params = PythonParameter(module=_MODULE, layer="BatchFeed", param_str=json.dumps(fields))
        return Layer(layer.name, "Python", (), layer.tops, LayerParameter(python_param=params))


def layer_text(layer: Layer) -> str:
    """Return one layer as prototxt text."""
    return net_text(Net("", (), (layer,)))


def net_for_caffe(net: Net, phase: str, replacement: DataLayerReplacement) -> Net:
    """Return the net that Caffe runs. Raises NetError if the net has inputs or layers that no data set feeds."""
    for layer in net.layers:
        if layer.type in _TYPES_WITHOUT_DATA_SET:
            raise layer.error("no data set feeds it, and a solver cannot: use a data layer such as Data in its place")
    if net.inputs:
        names = ", ".join(value.blob for value in net.inputs)
        raise NetError(f"{net.source}: a solver cannot feed the net's inputs ({names}): use a data layer such as Data")
    replaced_layers = [_layer_for_caffe(layer, phase, replacement) for layer in net.layers]
    meter = Layer(METER, "Python", (), (), LayerParameter(python_param={"module": _MODULE, "layer": "LossMeter"}))
    params = net.params.replace(state=None)
    return Net(net.name, (), (*replaced_layers, *((meter,) if phase == "TRAIN" else ())), params, net.source)


def _layer_for_caffe(layer: Layer, phase: str, replacement: DataLayerReplacement) -> Layer:
    """Return a layer as Caffe runs it. Its include and exclude rules have been applied already and are dropped."""
    if is_replaced(layer):
        return replacement.replacement_layer(layer, phase)
    if is_augmented_data(layer):
        layer = with_located_source(layer, lambda name: locate_beside_solver(name, replacement.folder))
    layer = proposal_for_our_caffe(layer) if layer.type == "Proposal" else layer
    return replace(layer, params=layer.params.replace(include=None, exclude=None))


def is_replaced(layer: Layer) -> bool:
    """Whether a data layer is replaced by BatchFeed: not if it uses fields that only SSD's DataTransformer has."""
    if layer.type not in BATCHES_BY_TYPE:
        return False
    try:
        transform_of_layer(layer, Path)
    except UnsupportedError:
        return False
    return True


def inexact_resume_warnings(net: Net) -> Iterator[str]:
    """Yield one line for each layer that keeps a resumed run of this net from being exact."""
    for layer in net.layers:
        subject = f"layer {layer.name!r} ({layer.type})"
        if _has_unknown_position(layer):
            yield f"{subject}: its position in the data is not known; a resumed run begins with the first sample again"
        if layer.type in _RECURRENT:
            yield f"{subject}: its state from batch to batch is in no snapshot; a resumed run begins with zeros"


def _has_unknown_position(layer: Layer) -> bool:
    """Whether a layer has a position in its data that we do not control: other data layers, foreign Python layers."""
    layer_type = layers.find_layer_type(layer.type)
    source = layer.type == "Python" or (layer_type is not None and layer_type.data and layer.type not in _STATELESS)
    return source and not layer.bottoms and not is_replaced(layer) and not is_augmented_data(layer)


def solver_for_caffe(solver: Solver, net: Path, prefix: Path, seed: int) -> str:
    """Return the solver prototxt that Caffe runs: only updates; the training loop tests, displays and snapshots."""
    overrides = {
        "train_net": str(net),
        "snapshot_prefix": str(prefix),
        "snapshot_after_train": False,
        "random_seed": seed,
    }
    params = SolverParameter()._make(dict(solver.params.set_fields()), ())
    return solver_text(params.replace(**dict.fromkeys(_FIELDS_NOT_FOR_CAFFE)).replace(**overrides))


def with_original_layers(stored: Iterable[StoredLayer], net: Net) -> Iterator[NewLayer]:
    """Yield the layers of a file that Caffe wrote for the net it ran, with the data layers of the original net."""
    data_layers = {layer.name: layer for layer in net.layers if is_replaced(layer) or is_augmented_data(layer)}
    for stored_layer in stored:
        if stored_layer.name in data_layers:
            yield _data_layer(data_layers[stored_layer.name], stored_layer)
        elif stored_layer.name != METER:
            yield stored_layer.to_new_layer()


def _data_layer(layer: Layer, stored_layer: StoredLayer) -> NewLayer:
    params = encoded_params(layer, DIALECTS["bvlc"])
    return NewLayer(layer.name, layer.type, (), (), stored_layer.tops, stored_layer.phase, params)
