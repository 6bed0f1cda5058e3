"""The child process in which real Caffe trains. `pycaffe_backend` starts it; see `real_caffe.child_server`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from prototxt_gen.real_caffe.child_server import Request, serve
from prototxt_gen.train.backend import MAX_REPORTED_VALUES

AUTOMATIC = "(automatic)"
"""The name of the top of a loss layer without a top in its prototxt. Source: src/caffe/net.cpp Net::AppendTop."""

_UNWRITTEN = np.float32(1e30)
"""Written into gradients before a backward pass, to see whether the pass overwrites it."""


class TrainingSession:
    """A solver and its test nets in Caffe. Each public method answers the request with its name."""

    def __init__(self, request: Request) -> None:
        import caffe

        from prototxt_gen.train.pycaffe_layers import LossMeter

        self.caffe: Any = caffe
        self._choose_device(request["gpu"])
        self.solver: Any = caffe.get_solver(request["solver"])
        self.net: Any = self.solver.net
        self.test_nets: list[Any] = [caffe.Net(path, caffe.TEST) for path in request["tests"]]
        # by index, because several blobs may have the same name (see AUTOMATIC)
        pairs = zip(self.net._blobs, self.net._blob_loss_weights, strict=True)
        self.loss_blobs = [(blob, weight) for blob, weight in pairs if weight]
        self.loss = 0.0
        LossMeter.on_forward = staticmethod(self._add_loss)

    def _choose_device(self, gpu: int | None) -> None:
        """Select the GPU, or the CPU if it is None. Raises RuntimeError if this Caffe has no GPUs."""
        if gpu is None:
            self.caffe.set_mode_cpu()
            return
        try:
            self.caffe.set_device(gpu)
            self.caffe.set_mode_gpu()
        except Exception as error:
            raise RuntimeError(f"--gpu {gpu}: {error}") from None

    def _add_loss(self) -> None:
        """Add the loss of one batch. Source: src/caffe/net.cpp Net::ForwardFromTo, include/caffe/layer.hpp."""
        for blob, weight in self.loss_blobs:
            self.loss += weight * float(blob.data.sum(dtype=np.float64))

    def start_answer(self) -> Any:
        """Return the shapes of all learned blobs by layer name, the answer to the request "start"."""
        return {name: [list(blob.data.shape) for blob in blobs] for name, blobs in self.net.params.items()}

    def blob_shapes(self, request: Request) -> Any:
        """Return the shapes of the requested blobs of the train net."""
        return [list(self.net.blobs[name].data.shape) for name in request["blobs"]]

    def has_backward(self, request: Request) -> Any:
        """Return whether the backward pass of a net writes, or shares, the gradient of any of its inputs."""
        net = self.caffe.Net(request["net"], self.caffe.TRAIN)
        net.forward()
        for name in net.inputs:
            net.blobs[name].diff[...] = _UNWRITTEN
        for name in net.outputs:
            net.blobs[name].diff[...] = 0
        net.backward()
        return not all((net.blobs[name].diff == _UNWRITTEN).all() for name in net.inputs)

    def step(self, request: Request) -> Any:
        """Run one training iteration; all its random numbers come from the request's seed."""
        self._seed_and_seek(self.net, request)
        self.loss = 0.0
        self.solver.step(1)
        return {"loss": self.loss, "outputs": _reported_outputs(self.net)}

    def test(self, request: Request) -> Any:
        """Run one batch of a test net and return its outputs."""
        net = self.test_nets[request["net"]]
        net.share_with(self.net)
        self._seed_and_seek(net, request)
        net._forward(0, len(net.layers) - 1)  # net.forward looks up blobs by name, see _reported_outputs
        return _reported_outputs(net)

    def _seed_and_seek(self, net: Any, request: Request) -> None:
        self.caffe.set_random_seed(request["seed"])
        random.seed(request["seed"])
        np.random.seed(request["seed"])
        for layer in _seekable_layers(net):
            layer.seek(request["batch"])

    def copy_weights(self, request: Request) -> Any:
        """Copy the weights of a file into the net by layer name."""
        self.net.copy_from(request["weights"])

    def restore(self, request: Request) -> Any:
        """Load a solver state and return its iteration."""
        self.solver.restore(request["state"])
        return self.solver.iter

    def snapshot(self, request: Request) -> Any:
        """Write weights and solver state; the solver's snapshot_prefix says where."""
        self.solver.snapshot()


def _seekable_layers(net: Any) -> Iterator[Any]:
    """Yield our Python layers that can produce any batch by index: `BatchFeed` and `AugmentedData`."""
    for layer in net.layers:
        if type(layer).__module__.startswith("prototxt_gen.") and hasattr(layer, "seek"):
            yield layer


def _reported_outputs(net: Any) -> dict[str, list[float]]:
    """Return the net's outputs by name, without large ones (maps, labels) and without unnamed losses.

    They are read by index, because two unnamed losses have the same name, and pycaffe's own `outputs` counts names.
    """
    outputs = [(net._blob_names[index], net._blobs[index].data) for index in net._outputs]
    reported = [(name, data) for name, data in outputs if name != AUTOMATIC and data.size <= MAX_REPORTED_VALUES]
    return {name: data.ravel().tolist() for name, data in reported}


if __name__ == "__main__":
    serve(TrainingSession)
