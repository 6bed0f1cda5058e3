"""The inputs of a net, batch by batch, each a function of (seed, batch index): what data layers give, without Caffe.

Data, ImageData and HDF5Data come from `batches`, the Python layer of augmented data from `data.batch_loader`,
both made ahead in worker processes; DummyData is filled here; Input, MemoryData and the net's own inputs get what the
caller gives. Of several processes that train together each takes every n-th batch: n processes with batches of B see
the samples that one process sees with batches of n·B.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError, PrototxtGenError, UnsupportedError
from prototxt_gen.ir import Layer, Net, Shape, Value
from prototxt_gen.layers.data.dummy_data import fillers
from prototxt_gen.layers.utility.python import PythonParameter
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.render import net_text
from prototxt_gen.net.solver import Solver
from prototxt_gen.schema.caffe_proto import LayerParameter, SolverParameter
from prototxt_gen.train.data_layer_batches import MAKERS, batches_of
from prototxt_gen.train.data_shapes import is_augmented, located
from prototxt_gen.train.fillers import fill, rng_for

Array = npt.NDArray[Any]
Given = Callable[[int], Mapping[str, Array]]
"""Batches from the caller: the content of each input blob by name, for the index of a batch counted from 0."""


@dataclass(frozen=True)
class Place:
    """What a feed belongs to: phase and seed; the solver's file, beside which others are looked for; which process."""

    phase: str
    seed: int
    solver: str = ""
    workers: int = 0
    rank: int = 0
    ranks: int = 1


class Maker(Protocol):
    """Makes any batch of one layer, its tops in order."""

    def make(self, batch: int) -> tuple[Array, ...]: ...


class Augmented:
    """Batches of the Python layer `AugmentedData`."""

    def __init__(self, layer: Layer, place: Place) -> None:
        from prototxt_gen.data.batch_loader import BatchMaker

        beside = Solver(SolverParameter(), source=place.solver).locate
        told = json.loads(located(layer, beside).get(PythonParameter).param_str)
        self.maker = BatchMaker(json.dumps({"phase": place.phase, **told}))

    def make(self, batch: int) -> tuple[Array, ...]:
        size = self.maker.spec.batch_size
        data, labels = np.empty((size, *self.maker.shape), np.float32), np.empty(size, np.float32)
        self.maker.make(batch, data, labels)
        return data, labels


class Dummies:
    """Batches of DummyData: constants, or numbers drawn anew. Source: src/caffe/layers/dummy_data_layer.cpp."""

    def __init__(self, layer: Layer, place: Place) -> None:
        self.layer, self.seed = layer, place.seed
        shapes = layers.layer_type_of(layer).infer(layer, ())
        self.tops = list(zip(fillers(layer), shapes, strict=True))

    def make(self, batch: int) -> tuple[Array, ...]:
        return tuple(
            fill(filler, shape, rng_for(self.seed, f"{self.layer.name} {batch}", index))
            for index, (filler, shape) in enumerate(self.tops)
        )


class Handed:
    """Batches that the caller gives for some blobs."""

    def __init__(self, blobs: Sequence[str], given: Given) -> None:
        self.blobs, self.given = blobs, given

    def make(self, batch: int) -> tuple[Array, ...]:
        found = self.given(batch)
        missing = [blob for blob in self.blobs if blob not in found]
        if missing:
            raise NetError(f"input {missing[0]!r} is not among the blobs given: {', '.join(found)}")
        return tuple(np.ascontiguousarray(found[blob], np.float32) for blob in self.blobs)


def maker_of(layer: Layer, place: Place) -> Maker:
    """Return what makes a data layer's batches; PrototxtGenError, naming the layer, where its data set is at fault."""
    if layer.type in MAKERS:
        return batches_of(layer, place.phase, place.seed, Solver(SolverParameter(), source=place.solver).locate)
    if layer.type == "DummyData":
        return Dummies(layer, place)
    if not is_augmented(layer):
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): its data cannot be read without its Caffe")
    try:
        return Augmented(layer, place)
    except PrototxtGenError as error:
        raise PrototxtGenError(f"layer {layer.name!r} ({layer.type}): {error}") from error


class LayerMaker:
    """A layer's batches in a worker process, told as JSON: the layer's text, and the place."""

    def __init__(self, told: str) -> None:
        given = json.loads(told)
        self.place = Place(**given["place"])
        self.maker = maker_of(parse_net(given["layer"]).layers[0], self.place)

    def make(self, turn: int, *arrays: Array) -> None:
        """Fill the arrays of the batch that is this process's at its turn number `turn`."""
        for array, made in zip(arrays, self.maker.make(_batch(turn, self.place)), strict=True):
            if array.shape != made.shape:
                raise PrototxtGenError(f"a blob comes out as {made.shape}, in the first batch it was {array.shape}")
            array[...] = made


def _batch(turn: int, place: Place) -> int:
    return turn * place.ranks + place.rank


class Source:
    """The batches of one layer, or of inputs the caller gives, turn by turn."""

    def __init__(self, tops: Sequence[Value], maker: Maker, place: Place, layer: Layer | None = None) -> None:
        self.tops, self.maker, self.place, self.layer = tops, maker, place, layer
        self.shapes: tuple[Shape, ...] = tuple(array.shape for array in maker.make(place.rank))
        self._crew: Any = None

    def take(self, turn: int) -> tuple[Array, ...]:
        """Return the arrays of a turn; quickest where turns are asked for in order."""
        if self.layer is None or not self.place.workers:
            return self.maker.make(_batch(turn, self.place))
        if self._crew is None:
            self._crew = self._hire(self.layer)
        arrays = tuple(np.empty(shape, np.float32) for shape in self.shapes)
        try:
            self._crew.fill(turn, *arrays)
        except PrototxtGenError as error:
            raise PrototxtGenError(f"layer {self.layer.name!r} ({self.layer.type}): {error}") from error
        return arrays

    def _hire(self, layer: Layer) -> Any:
        from prototxt_gen.data.worker_processes import Crew, Recipe

        told = {"layer": net_text(Net("", (), (layer,))), "place": asdict(self.place)}
        recipe = Recipe("prototxt_gen.train.input_feed:LayerMaker", json.dumps(told), self.shapes)
        return Crew(recipe, self.place.workers)

    def close(self) -> None:
        """End the worker processes."""
        if self._crew is not None:
            self._crew.close()


class Feed:
    """All that a net of one phase takes from outside. `net` is the net with Input layers in place of data layers.

    `given` feeds inputs, Input and MemoryData layers; a NetError names the first of them where it is missing.
    """

    def __init__(self, net: Net, place: Place, given: Given | None = None) -> None:
        self.place = place
        self.sources = [self._source(layer, given) for layer in net.layers if _makes(layer)]
        if net.inputs:
            self.sources.insert(0, _handed(net.inputs, place, given, f"{net.source or net.name}: the net's inputs"))
        self.shapes = {t.blob: shape for s in self.sources for t, shape in zip(s.tops, s.shapes, strict=True)}
        inputs = tuple(replace(value, shape=self.shapes[value.blob]) for value in net.inputs)
        made = [self._stand_in(layer) if _makes(layer) else layer for layer in net.layers]
        self.net = Net(net.name, inputs, (), net.params, net.source).relinked(made)

    def _source(self, layer: Layer, given: Given | None) -> Source:
        if layer.type in ("Input", "MemoryData"):
            return _handed(layer.tops, self.place, given, f"layer {layer.name!r} ({layer.type})")
        remote = layer.type in MAKERS or is_augmented(layer)
        return Source(layer.tops, maker_of(layer, self.place), self.place, layer if remote else None)

    def _stand_in(self, layer: Layer) -> Layer:
        shapes = [{"dim": self.shapes[top.blob]} for top in layer.tops]
        return replace(layer, type="Input", params=LayerParameter(input_param={"shape": shapes}))

    def take(self, turn: int) -> dict[str, Array]:
        """Return the content of every blob at a turn, counted from 0 at the start of training."""
        return {
            top.blob: array
            for source in self.sources
            for top, array in zip(source.tops, source.take(turn), strict=True)
        }

    def close(self) -> None:
        """End all worker processes."""
        for source in self.sources:
            source.close()


def _handed(tops: Sequence[Value], place: Place, given: Given | None, who: str) -> Source:
    if given is None:
        raise NetError(f"{who}: nothing feeds it; use a data layer such as Data, or train from Python and give batches")
    return Source(tops, Handed([top.blob for top in tops], given), place)


def _makes(layer: Layer) -> bool:
    layer_type = layers.find_layer_type(layer.type)
    return is_augmented(layer) or (layer_type is not None and layer_type.data)
