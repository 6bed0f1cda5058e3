"""The process that Caffe predicts in: a line of JSON in, a line of JSON out. Only `CaffePredictor` starts it."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import numpy as np

Order = dict[str, Any]


class Session:
    """A net in Caffe."""

    def __init__(self, order: Order) -> None:
        import caffe

        caffe.set_mode_cpu()
        self.net: Any = caffe.Net(order["net"], order["weights"], caffe.TEST)
        self.input, self.output = order["input"], order["output"]

    def forward(self, order: Order) -> None:
        """Run one batch, from one .npy file to another."""
        batch, blob = np.load(order["batch"]), self.net.blobs[self.input]
        blob.reshape(*batch.shape)
        self.net.reshape()
        blob.data[...] = batch
        self.net.forward()
        np.save(order["scores"], self.net.blobs[self.output].data)


def _answer(session: list[Session], order: Order) -> Order:
    try:
        if order["do"] == "start":
            session[:] = [Session(order)]
        else:
            session[0].forward(order)
        return {"ok": None}
    except Exception as error:  # every fault is the parent's to report
        return {"error": str(error), "kind": type(error).__name__}


def main() -> None:
    """Serve until stdin ends. What Caffe prints goes to stderr, a file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session: list[Session] = []
    for line in sys.stdin:
        answers.write(json.dumps(_answer(session, json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
