"""Python layers inside the nets that the pycaffe backend runs. Only Caffe imports this module.

BatchFeed  replaces Data, ImageData and HDF5Data: outputs the batches of `train.data_layer_batches` from any index on
LossMeter  last layer of the train net: sums the loss over the batches of one iteration, which Solver::Step does not
           make available

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
from prototxt_gen.train.data_shapes import locate_beside_solver


class BatchFeed(caffe.Layer):  # type: ignore[misc]
    """Outputs the batches of the data layer that it replaces.

    param_str is JSON: `layer` (the replaced layer as prototxt), `phase`, `seed`, `threads`, `folder` (of the solver).
    """

    def setup(self, bottom: Any, top: Any) -> None:
        """Open the data set."""
        fields = json.loads(self.param_str)
        layer = parse_net(fields["layer"]).layers[0]
        folder = Path(fields["folder"])
        batches = batches_of(layer, fields["phase"], fields["seed"], lambda name: locate_beside_solver(name, folder))
        self.prefetcher = Prefetcher(batches, fields["threads"])

    def reshape(self, bottom: Any, top: Any) -> None:
        """Reshape the tops for the next batch. Without a crop, image sizes may change from batch to batch."""
        for blob, array in zip(top, self.prefetcher.peek(), strict=True):
            blob.reshape(*array.shape)

    def forward(self, bottom: Any, top: Any) -> None:
        """Copy the next batch into the tops."""
        for blob, array in zip(top, self.prefetcher.next(), strict=True):
            blob.data[...] = array

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Do nothing: data have no gradient."""

    def seek(self, batch: int) -> None:
        """Make batch number `batch`, counted from 0 at the start of training, the next one."""
        self.prefetcher.seek(batch)


class LossMeter(caffe.Layer):  # type: ignore[misc]
    """A layer without bottoms and tops that calls `on_forward` after all other layers have run."""

    on_forward: Callable[[], None] = staticmethod(lambda: None)

    def setup(self, bottom: Any, top: Any) -> None:
        """Do nothing."""

    def reshape(self, bottom: Any, top: Any) -> None:
        """Do nothing."""

    def forward(self, bottom: Any, top: Any) -> None:
        """Report to the trainer that a forward pass has finished."""
        LossMeter.on_forward()

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Do nothing."""
