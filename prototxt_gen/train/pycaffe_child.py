"""The process that Caffe runs in: a line of JSON in, a line of JSON out. Only `pycaffe_backend` starts it.

A failed CHECK in Caffe may end the process it happens in; so it is not the trainer's. The end of stdin is the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen.train.backend import MOST_NUMBERS

Order = dict[str, Any]


class Session:
    """A solver and its test nets in Caffe."""

    def __init__(self, order: Order) -> None:
        import caffe

        from prototxt_gen.train.caffe_data import Meter

        self.caffe: Any = caffe
        if order["gpu"] is None:
            caffe.set_mode_cpu()
        else:
            caffe.set_device(order["gpu"])
            caffe.set_mode_gpu()
        self.solver: Any = caffe.get_solver(order["solver"])
        self.net: Any = self.solver.net
        self.tests: list[Any] = [caffe.Net(path, caffe.TEST) for path in order["tests"]]
        self.weighted = [(name, weight) for name, weight in self.net.blob_loss_weights.items() if weight]
        self.loss = 0.0
        Meter.on_forward = staticmethod(self._forwarded)

    def _forwarded(self) -> None:
        """Add up one batch's loss. Source: src/caffe/net.cpp Net::ForwardFromTo, include/caffe/layer.hpp."""
        for name, weight in self.weighted:
            self.loss += weight * float(self.net.blobs[name].data.sum(dtype=np.float64))

    def shapes(self, order: Order) -> Any:
        """Return the shapes of every layer's blobs."""
        return {name: [list(blob.data.shape) for blob in blobs] for name, blobs in self.net.params.items()}

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
        net.forward()
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
    """Return the net's outputs; maps and labels that nothing takes are left out."""
    found = {name: net.blobs[name].data for name in net.outputs}
    return {name: data.ravel().tolist() for name, data in found.items() if data.size <= MOST_NUMBERS}


def _answer(session: list[Session], order: Order) -> Order:
    try:
        if order["do"] == "start":
            session[:] = [Session(order)]
            return {"ok": session[0].shapes(order)}
        action: Callable[[Order], Any] = getattr(session[0], order["do"])
        return {"ok": action(order)}
    except Exception as error:  # every fault is the parent's to report
        return {"error": str(error), "kind": type(error).__name__}


def main() -> None:
    """Serve until stdin ends. What Caffe and its layers print goes to stderr, a file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.path.insert(0, str(Path.cwd()))  # where layers of the user's own are looked for
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session: list[Session] = []
    for line in sys.stdin:
        answers.write(json.dumps(_answer(session, json.loads(line))) + "\n")
    answers.flush()
    os._exit(0)  # Caffe's prefetch threads and Python's end get into each other's way


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
