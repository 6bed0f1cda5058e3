"""Child process in which real Caffe runs a net for `CaffePredictor` (see `real_caffe.child_server`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen.real_caffe.child_server import Request, serve


class PredictorSession:
    """A net with weights in real Caffe, on the CPU."""

    def __init__(self, request: Request) -> None:
        import caffe

        caffe.set_mode_cpu()
        self.net: Any = caffe.Net(request["net"], request["weights"], caffe.TEST)
        self.input, self.output = request["input"], request["output"]

    def start_answer(self) -> None:
        """Return the answer to the request "start": nothing, since the net is loaded."""

    def forward(self, request: Request) -> None:
        """Run the net on the batch in one .npy file and write the scores to another."""
        batch, blob = np.load(request["batch"]), self.net.blobs[self.input]
        blob.reshape(*batch.shape)
        self.net.reshape()
        blob.data[...] = batch
        self.net.forward()
        np.save(request["scores"], self.net.blobs[self.output].data)


if __name__ == "__main__":
    serve(PredictorSession)
