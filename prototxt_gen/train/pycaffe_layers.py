"""Layers of type Python that stand in the nets that pycaffe really runs. Only Caffe imports this module.

Fed     in place of Data, ImageData and HDF5Data: the batches of `train.data_layer_batches`, from any position
Meter   last in the train net: adds up the loss over the batches of one iteration, which Solver::Step keeps to itself

**Source**: include/caffe/layers/python_layer.hpp; src/caffe/net.cpp Net::ForwardFromTo.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe

from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.train.batch_prefetch import Prefetcher
from prototxt_gen.train.data_layer_batches import batches_of
from prototxt_gen.train.data_shapes import locate


class Fed(caffe.Layer):  # type: ignore[misc]
    """param_str is JSON: the layer it stands for as `layer`, `phase`, `seed`, `threads`, the solver's `folder`."""

    def setup(self, bottom: Any, top: Any) -> None:
        """Open the data set."""
        given = json.loads(self.param_str)
        layer = parse_net(given["layer"]).layers[0]
        folder = Path(given["folder"])
        batches = batches_of(layer, given["phase"], given["seed"], lambda name: locate(name, folder))
        self.feed = Prefetcher(batches, given["threads"])

    def reshape(self, bottom: Any, top: Any) -> None:
        """Give the tops the shapes of the batch that comes; without a crop they may change from batch to batch."""
        for blob, array in zip(top, self.feed.peek(), strict=True):
            blob.reshape(*array.shape)

    def forward(self, bottom: Any, top: Any) -> None:
        """Write the next batch into the tops."""
        for blob, array in zip(top, self.feed.next(), strict=True):
            blob.data[...] = array

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Do nothing: data have no gradient."""

    def seek(self, batch: int) -> None:
        """Make batch `batch`, counted from 0 at the start of training, the next one."""
        self.feed.seek(batch)


class Meter(caffe.Layer):  # type: ignore[misc]
    """No bottoms, no tops: calls `on_forward` after all other layers ran."""

    on_forward: Callable[[], None] = staticmethod(lambda: None)

    def setup(self, bottom: Any, top: Any) -> None:
        """Do nothing."""

    def reshape(self, bottom: Any, top: Any) -> None:
        """Do nothing."""

    def forward(self, bottom: Any, top: Any) -> None:
        """Tell the trainer that a forward pass is done."""
        Meter.on_forward()

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Do nothing."""
