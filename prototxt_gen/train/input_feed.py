"""The inputs of a whole net for the PyTorch backend: what all of its data layers produce, by batch index.

* Data, ImageData and HDF5Data: `data_layer_batches`. The Python layer `AugmentedData`: `data.batch_loader`. Both are
  computed ahead in worker processes (`data.worker_processes`).
* DummyData: filled here.
* Input, MemoryData and the net's own inputs: the caller passes a function that returns them.

Every batch is a pure function of (seed, batch index). Where n processes train together, each one uses every n-th batch:
n processes with batches of B see the same samples as one process with batches of n·B.
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
from prototxt_gen.net.phase_rules import phase_of_layer
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.net.render import net_text
from prototxt_gen.net.solver import Solver
from prototxt_gen.schema.caffe_proto import LayerParameter, SolverParameter
from prototxt_gen.train.data_layer_batches import BATCHES_BY_TYPE, batches_of
from prototxt_gen.train.data_shapes import is_augmented_data, with_located_source
from prototxt_gen.train.fillers import blob_rng, fill

Array = npt.NDArray[Any]
BatchFunction = Callable[[int], Mapping[str, Array]]
"""Returns the input blobs by name for a batch index, counted from 0. The caller of the backend passes it."""


@dataclass(frozen=True)
class FeedContext:
    """What the batches of a net depend on, beside the net.

    `solver` is the path of the solver prototxt, beside which files are looked for. `rank` is the number of this
    process, `ranks` the number of processes that train together.
    """

    phase: str
    seed: int
    solver: str = ""
    workers: int = 0
    rank: int = 0
    ranks: int = 1

    def global_batch(self, local_batch: int) -> int:
        """Return the index of a batch in the whole run for its index among the batches of this process."""
        return local_batch * self.ranks + self.rank


class LayerBatches(Protocol):
    """All batches of one layer."""

    def make(self, batch: int) -> tuple[Array, ...]:
        """Return the tops of batch number `batch`, in order."""
        ...


class AugmentedBatches:
    """Batches of the Python layer `AugmentedData`: data (N×C×H×W) and labels (N)."""

    def __init__(self, layer: Layer, context: FeedContext) -> None:
        from prototxt_gen.data.batch_loader import BatchMaker

        locate = Solver(SolverParameter(), source=context.solver).locate
        fields = json.loads(with_located_source(layer, locate).get(PythonParameter).param_str)
        self.maker = BatchMaker(json.dumps({"phase": phase_of_layer(layer, context.phase), **fields}))

    def make(self, batch: int) -> tuple[Array, ...]:
        size = self.maker.spec.batch_size
        data, labels = np.empty((size, *self.maker.shape), np.float32), np.empty(size, np.float32)
        self.maker.make(batch, data, labels)
        return data, labels


class DummyBatches:
    """Batches of DummyData, filled anew for every batch. Source: src/caffe/layers/dummy_data_layer.cpp."""

    def __init__(self, layer: Layer, context: FeedContext) -> None:
        self.layer, self.seed = layer, context.seed
        shapes = layers.layer_type_of(layer).infer(layer, ())
        self.tops = list(zip(fillers(layer), shapes, strict=True))

    def make(self, batch: int) -> tuple[Array, ...]:
        return tuple(
            fill(filler, shape, blob_rng(self.seed, f"{self.layer.name} {batch}", index))
            for index, (filler, shape) in enumerate(self.tops)
        )


class CallerBatches:
    """Batches of some input blobs that the caller's function returns."""

    def __init__(self, blobs: Sequence[str], batch_function: BatchFunction) -> None:
        self.blobs, self.batch_function = blobs, batch_function

    def make(self, batch: int) -> tuple[Array, ...]:
        arrays = self.batch_function(batch)
        missing = [blob for blob in self.blobs if blob not in arrays]
        if missing:
            raise NetError(f"input {missing[0]!r} is not among the blobs given: {', '.join(arrays)}")
        return tuple(np.ascontiguousarray(arrays[blob], np.float32) for blob in self.blobs)


def layer_batches(layer: Layer, context: FeedContext) -> LayerBatches:
    """Return the batches of a data layer.

    Raises PrototxtGenError, naming the layer, if its data set cannot be read, and UnsupportedError for other types.
    """
    if layer.type in BATCHES_BY_TYPE:
        locate = Solver(SolverParameter(), source=context.solver).locate
        return batches_of(layer, context.phase, context.seed, locate)
    if layer.type == "DummyData":
        return DummyBatches(layer, context)
    if not is_augmented_data(layer):
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): its data can only be read by Caffe itself")
    try:
        return AugmentedBatches(layer, context)
    except PrototxtGenError as error:
        raise PrototxtGenError(f"layer {layer.name!r} ({layer.type}): {error}") from error


class WorkerBatches:
    """The batches of a layer in a worker process, constructed from JSON: the layer as prototxt, and the context."""

    def __init__(self, json_text: str) -> None:
        fields = json.loads(json_text)
        self.context = FeedContext(**fields["context"])
        self.batches = layer_batches(parse_net(fields["layer"]).layers[0], self.context)

    def make(self, local_batch: int, *arrays: Array) -> None:
        """Write a batch into the arrays; `local_batch` counts the batches of this process."""
        tops = self.batches.make(self.context.global_batch(local_batch))
        for array, top in zip(arrays, tops, strict=True):
            if array.shape != top.shape:
                raise PrototxtGenError(f"a blob has shape {top.shape}; in the first batch it had {array.shape}")
            array[...] = top


class InputSource:
    """The batches of one data layer, or of inputs that the caller passes, for this process.

    With `layer`, the batches are computed in worker processes if the context has workers.
    """

    def __init__(
        self, tops: Sequence[Value], batches: LayerBatches, context: FeedContext, layer: Layer | None = None
    ) -> None:
        self.tops, self.batches, self.context, self.layer = tops, batches, context, layer
        self.shapes: tuple[Shape, ...] = tuple(array.shape for array in batches.make(context.rank))
        self._workers: Any = None

    def batch_at(self, local_batch: int) -> tuple[Array, ...]:
        """Return the arrays of a batch of this process. Fastest where batches are requested in order."""
        if self.layer is None or not self.context.workers:
            return self.batches.make(self.context.global_batch(local_batch))
        if self._workers is None:
            self._workers = self._start_workers(self.layer)
        arrays = tuple(np.empty(shape, np.float32) for shape in self.shapes)
        try:
            self._workers.fill(local_batch, *arrays)
        except PrototxtGenError as error:
            raise PrototxtGenError(f"layer {self.layer.name!r} ({self.layer.type}): {error}") from error
        return arrays

    def _start_workers(self, layer: Layer) -> Any:
        from prototxt_gen.data.worker_processes import MakerSpec, WorkerPool

        fields = {"layer": net_text(Net("", (), (layer,))), "context": asdict(self.context)}
        spec = MakerSpec("prototxt_gen.train.input_feed:WorkerBatches", json.dumps(fields), self.shapes)
        return WorkerPool(spec, self.context.workers)

    def close(self) -> None:
        """Stop the worker processes."""
        if self._workers is not None:
            self._workers.close()


class InputFeed:
    """All inputs of a net of one phase; `net` is the net with Input layers in place of its data layers.

    `batch_function` returns the blobs of the net's inputs and of Input and MemoryData layers. Raises NetError if one of
    these exists and there is no such function.
    """

    def __init__(self, net: Net, context: FeedContext, batch_function: BatchFunction | None = None) -> None:
        self.context = context
        self.sources = [self._source(layer, batch_function) for layer in net.layers if _is_data_layer(layer)]
        if net.inputs:
            subject = f"{net.source or net.name}: the net's inputs"
            self.sources.insert(0, _caller_source(net.inputs, context, batch_function, subject))
        self.shapes = {t.blob: shape for s in self.sources for t, shape in zip(s.tops, s.shapes, strict=True)}
        inputs = tuple(replace(value, shape=self.shapes[value.blob]) for value in net.inputs)
        replaced = [self._as_input_layer(layer) if _is_data_layer(layer) else layer for layer in net.layers]
        self.net = Net(net.name, inputs, (), net.params, net.source).relinked(replaced)

    def _source(self, layer: Layer, batch_function: BatchFunction | None) -> InputSource:
        layers.layer_type_of(layer).check_arity(layer)  # the checks only warn of a fork's form with more tops
        if layer.type in ("Input", "MemoryData"):
            return _caller_source(layer.tops, self.context, batch_function, f"layer {layer.name!r} ({layer.type})")
        reads_data = layer.type in BATCHES_BY_TYPE or is_augmented_data(layer)
        batches = layer_batches(layer, self.context)
        return InputSource(layer.tops, batches, self.context, layer if reads_data else None)

    def _as_input_layer(self, layer: Layer) -> Layer:
        shapes = [{"dim": self.shapes[top.blob]} for top in layer.tops]
        return replace(layer, type="Input", params=LayerParameter(input_param={"shape": shapes}))

    def batch_at(self, local_batch: int) -> dict[str, Array]:
        """Return every input blob of a batch of this process, counted from 0 at the start of training."""
        return {
            top.blob: array
            for source in self.sources
            for top, array in zip(source.tops, source.batch_at(local_batch), strict=True)
        }

    def close(self) -> None:
        """Stop all worker processes."""
        for source in self.sources:
            source.close()


def _caller_source(
    tops: Sequence[Value], context: FeedContext, batch_function: BatchFunction | None, subject: str
) -> InputSource:
    if batch_function is None:
        raise NetError(
            f"{subject}: nothing feeds it; use a data layer such as Data, or train from Python and give batches"
        )
    return InputSource(tops, CallerBatches([top.blob for top in tops], batch_function), context)


def _is_data_layer(layer: Layer) -> bool:
    layer_type = layers.find_layer_type(layer.type)
    return is_augmented_data(layer) or (layer_type is not None and layer_type.data)
