"""The process that Caffe predicts in (see `serving`). Only `CaffePredictor` starts it."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen.real_caffe.child_server import Request, serve


class Session:
    """A net in Caffe."""

    def __init__(self, request: Request) -> None:
        import caffe

        caffe.set_mode_cpu()
        self.net: Any = caffe.Net(request["net"], request["weights"], caffe.TEST)
        self.input, self.output = request["input"], request["output"]

    def start_answer(self) -> None:
        """Answer that the net is there."""

    def forward(self, request: Request) -> None:
        """Run one batch, from one .npy file to another."""
        batch, blob = np.load(request["batch"]), self.net.blobs[self.input]
        blob.reshape(*batch.shape)
        self.net.reshape()
        blob.data[...] = batch
        self.net.forward()
        np.save(request["scores"], self.net.blobs[self.output].data)


if __name__ == "__main__":
    serve(Session)
