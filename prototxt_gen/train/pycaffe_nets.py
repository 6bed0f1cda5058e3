"""The prototxts that pycaffe really runs: the solver's own, with data layers whose position and randomness we hold.

Data, ImageData and HDF5Data become Python layers of the same name and tops (`caffe_data.Fed`); the train net ends in a
`Meter`. All else stays as it is, so the weights' names, shapes and order are those of the net as written. Snapshots get
the layers as written back.
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
from prototxt_gen.schema.caffe_proto import LayerParameter, SolverParameter
from prototxt_gen.schema.dialect import DIALECTS
from prototxt_gen.train.data_layer_batches import MAKERS, transform_of
from prototxt_gen.train.data_shapes import is_augmented, locate, located

METER = "prototxt-gen/meter"
_MODULE = "prototxt_gen.train.pycaffe_layers"
_NOT_CAFFES = (
    "net", "train_net", "test_net", "train_state", "test_state", "test_iter", "test_interval", "test_initialization",
    "test_compute_loss", "display", "snapshot", "snapshot_format", "weights", "debug_info", "device_id",
)  # fmt: skip
"""Fields of the solver that the shell obeys, or that name what is given to Caffe otherwise."""
_STATELESS = frozenset({"DummyData", "Parameter"})
"""Types that make blobs without a data set."""
_UNFED = frozenset({"Input", "MemoryData"})
_RECURRENT = frozenset({"LSTM", "RNN"})


@dataclass(frozen=True)
class Feeding:
    """How data layers are replaced in the nets of one run."""

    seed: int
    folder: Path
    threads: int

    def stand_in(self, layer: Layer, phase: str) -> Layer:
        """Return the Python layer that gives what `layer` gives."""
        told = {
            "layer": layer_text(layer),
            "phase": phase,
            "seed": self.seed,
            "threads": self.threads,
            "folder": str(self.folder.absolute()),
        }
        own = PythonParameter(module=_MODULE, layer="Fed", param_str=json.dumps(told))
        return Layer(layer.name, "Python", (), layer.tops, LayerParameter(python_param=own))


def layer_text(layer: Layer) -> str:
    """Return one layer as prototxt."""
    return net_text(Net("", (), (layer,)))


def for_caffe(net: Net, phase: str, feeding: Feeding) -> Net:
    """Return the net to run. NetError where a blob has no one to feed it."""
    for layer in net.layers:
        if layer.type in _UNFED:
            raise layer.error("no data set feeds it, and a solver cannot: use a data layer such as Data in its place")
    if net.inputs:
        names = ", ".join(value.blob for value in net.inputs)
        raise NetError(f"{net.source}: a solver cannot feed the net's inputs ({names}): use a data layer such as Data")
    made = [_replaced(layer, phase, feeding) for layer in net.layers]
    meter = Layer(METER, "Python", (), (), LayerParameter(python_param={"module": _MODULE, "layer": "Meter"}))
    params = net.params.replace(state=None)
    return Net(net.name, (), (*made, *((meter,) if phase == "TRAIN" else ())), params, net.source)


def _replaced(layer: Layer, phase: str, feeding: Feeding) -> Layer:
    """Rules went into the choice of the layers already, and are left out."""
    if is_fed(layer):
        return feeding.stand_in(layer, phase)
    if is_augmented(layer):
        layer = located(layer, lambda name: locate(name, feeding.folder))
    return replace(layer, params=layer.params.replace(include=None, exclude=None))


def is_fed(layer: Layer) -> bool:
    """Whether the layer's data come through ours: not if it wants what only SSD's transformer does."""
    if layer.type not in MAKERS:
        return False
    try:
        transform_of(layer, Path)
    except UnsupportedError:
        return False
    return True


def remarks(net: Net) -> Iterator[str]:
    """Yield what keeps a resumed run of this net from being exact."""
    for layer in net.layers:
        who = f"layer {layer.name!r} ({layer.type})"
        if _has_a_place_of_its_own(layer):
            yield f"{who}: where it is in its data is not known here; a resumed run begins with the first again"
        if layer.type in _RECURRENT:
            yield f"{who}: what it carries from batch to batch is in no snapshot; a resumed run begins with zeros"


def _has_a_place_of_its_own(layer: Layer) -> bool:
    """Whether it goes through data by itself: what we do not replace, and Python layers that are not ours."""
    layer_type = layers.find_layer_type(layer.type)
    source = layer.type == "Python" or (layer_type is not None and layer_type.data and layer.type not in _STATELESS)
    return source and not layer.bottoms and not is_fed(layer) and not is_augmented(layer)


def solver_for_caffe(solver: Solver, net: Path, prefix: Path, seed: int) -> str:
    """Return the solver to run: it computes updates; the shell tests, shows and snapshots."""
    given = {"train_net": str(net), "snapshot_prefix": str(prefix), "snapshot_after_train": False, "random_seed": seed}
    own = SolverParameter()._make(dict(solver.params.set_fields()), ())
    return solver_text(own.replace(**dict.fromkeys(_NOT_CAFFES)).replace(**given))


def as_written(stored: Iterable[StoredLayer], net: Net) -> Iterator[NewLayer]:
    """Yield the layers of a file that Caffe wrote of the net it ran, with the layers of the net as written."""
    own = {layer.name: layer for layer in net.layers if is_fed(layer) or is_augmented(layer)}
    for found in stored:
        if found.name in own:
            yield _data_layer(own[found.name], found)
        elif found.name != METER:
            yield found.renewed()


def _data_layer(layer: Layer, found: StoredLayer) -> NewLayer:
    params = encoded_params(layer, DIALECTS["bvlc"])
    return NewLayer(layer.name, layer.type, (), (), found.tops, found.phase, params)
