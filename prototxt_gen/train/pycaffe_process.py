"""The process that Caffe trains in (see `serving`). Only `pycaffe_backend` starts it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from prototxt_gen.real_caffe.child_server import Order, serve
from prototxt_gen.train.backend import MOST_NUMBERS

AUTOMATIC = "(automatic)"
"""What Caffe calls the top of each loss that was written without one. Source: src/caffe/net.cpp Net::AppendTop."""

_UNWRITTEN = np.float32(1e30)
"""Stands in a gradient until something is written there."""


class Session:
    """A solver and its test nets in Caffe."""

    def __init__(self, order: Order) -> None:
        import caffe

        from prototxt_gen.train.pycaffe_layers import Meter

        self.caffe: Any = caffe
        if order["gpu"] is None:
            caffe.set_mode_cpu()
        else:
            caffe.set_device(order["gpu"])
            caffe.set_mode_gpu()
        self.solver: Any = caffe.get_solver(order["solver"])
        self.net: Any = self.solver.net
        self.tests: list[Any] = [caffe.Net(path, caffe.TEST) for path in order["tests"]]
        # by place: names need not tell them apart, see AUTOMATIC
        pairs = zip(self.net._blobs, self.net._blob_loss_weights, strict=True)
        self.weighted = [(blob, weight) for blob, weight in pairs if weight]
        self.loss = 0.0
        Meter.on_forward = staticmethod(self._forwarded)

    def _forwarded(self) -> None:
        """Add up one batch's loss. Source: src/caffe/net.cpp Net::ForwardFromTo, include/caffe/layer.hpp."""
        for blob, weight in self.weighted:
            self.loss += weight * float(blob.data.sum(dtype=np.float64))

    def started(self) -> Any:
        """Return the shapes of every layer's blobs."""
        return {name: [list(blob.data.shape) for blob in blobs] for name, blobs in self.net.params.items()}

    def blob_shapes(self, order: Order) -> Any:
        """Return the shapes of blobs of the net that is trained."""
        return [list(self.net.blobs[name].data.shape) for name in order["blobs"]]

    def goes_back(self, order: Order) -> Any:
        """Return whether the backward pass of a net writes, or shares, the gradient of one of its inputs."""
        net = self.caffe.Net(order["net"], self.caffe.TRAIN)
        net.forward()
        for name in net.inputs:
            net.blobs[name].diff[...] = _UNWRITTEN
        for name in net.outputs:
            net.blobs[name].diff[...] = 0
        net.backward()
        return not all((net.blobs[name].diff == _UNWRITTEN).all() for name in net.inputs)

    def step(self, order: Order) -> Any:
        """Run one iteration; everything random in it comes from the seed given."""
        self._begin(self.net, order)
        self.loss = 0.0
        self.solver.step(1)
        return {"loss": self.loss, "outputs": _outputs(self.net)}

    def test(self, order: Order) -> Any:
        """Run one batch of a test net."""
        net = self.tests[order["net"]]
        net.share_with(self.net)
        self._begin(net, order)
        net._forward(0, len(net.layers) - 1)  # net.forward takes blobs by their names too, see _outputs
        return _outputs(net)

    def _begin(self, net: Any, order: Order) -> None:
        self.caffe.set_random_seed(order["seed"])
        random.seed(order["seed"])
        np.random.seed(order["seed"])
        for layer in _ours(net):
            layer.seek(order["batch"])

    def copy(self, order: Order) -> Any:
        """Take over weights."""
        self.net.copy_from(order["weights"])

    def restore(self, order: Order) -> Any:
        """Take over a solver state."""
        self.solver.restore(order["state"])
        return self.solver.iter

    def snapshot(self, order: Order) -> Any:
        """Write both files where the solver's snapshot_prefix says."""
        self.solver.snapshot()


def _ours(net: Any) -> Iterator[Any]:
    """Yield the Python layers that give any batch asked for: `caffe_data.Fed`, and `AugmentedData`."""
    for layer in net.layers:
        if type(layer).__module__.startswith("prototxt_gen.") and hasattr(layer, "seek"):
            yield layer


def _outputs(net: Any) -> dict[str, list[float]]:
    """Return the net's outputs; maps and labels that nothing takes are left out, and so are losses without a name.

    By place: pycaffe's own `outputs` counts names, of which there are fewer than blobs where two losses have none.
    """
    found = [(net._blob_names[place], net._blobs[place].data) for place in net._outputs]
    return {name: data.ravel().tolist() for name, data in found if name != AUTOMATIC and data.size <= MOST_NUMBERS}


if __name__ == "__main__":
    serve(Session)
