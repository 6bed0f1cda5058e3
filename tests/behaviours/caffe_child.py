"""Runs behaviours in real Caffe: `python -m tests.behaviours.caffe_child FOLDER FIRST`.

For each one, from number FIRST on: weights drawn by its seed and saved by Caffe's own net.save; then the forward pass,
and another with one image more. A net that Caffe refuses leaves its error.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen.layers.example import Draw, normal, positive
from tests.behaviours import BEHAVIOURS, storage
from tests.behaviours.notation import Behaviour

Array = np.ndarray[Any, Any]
_STATISTICS: dict[str, tuple[Draw, ...]] = {
    "BatchNorm": (normal, positive, positive, normal, normal),
    "BN": (normal, normal, normal, positive),
}


def main(folder: Path, first: int) -> None:
    import caffe

    for index, one in enumerate(BEHAVIOURS[first:], first):
        place = folder / str(index)
        (place / "started").touch()
        try:
            run(caffe, one, place)
        except caffe.CheckError as error:
            (place / "refused.txt").write_text(str(error), encoding="utf-8")
        (place / "done").touch()


def run(caffe: Any, one: Behaviour, place: Path) -> None:
    """Leave the model file, `inputs.npz`, `blobs.npz`, and with one image more `inputs2.npz`, `blobs2.npz`."""
    file = str(place / "stock.prototxt")
    net = caffe.Net(file, caffe.TEST, level=one.level, stages=list(one.stages) or None)
    rng = np.random.default_rng(one.seed)
    fill(net, one, rng)
    model = storage.STORAGES[one.storage](net, place)
    if model is not None:
        net = caffe.Net(file, caffe.TEST, weights=str(model), level=one.level, stages=list(one.stages) or None)
    forward(net, one.shapes, one, rng, place, "")
    if one.shapes:
        batch = next(iter(one.shapes.values()))[:1]
        more = {blob: (s[0] + 1, *s[1:]) if s and s[:1] == batch else s for blob, s in one.shapes.items()}
        with suppress(caffe.CheckError, ValueError):  # a net for one batch size only, or draws that are
            forward(net, more, one, rng, place, "2")


def fill(net: Any, one: Behaviour, rng: np.random.Generator) -> None:
    types = dict(zip(net._layer_names, (layer.type for layer in net.layers), strict=True))
    for name, blobs in net.params.items():
        draws = one.fills.get(name) or _STATISTICS.get(types[name], ()) or (normal,)
        for index, blob in enumerate(blobs):
            draw = draws[min(index, len(draws) - 1)]
            blob.data[...] = draw(rng, tuple(blob.data.shape)).astype("float32")


def forward(net: Any, shapes: Any, one: Behaviour, rng: np.random.Generator, place: Path, suffix: str) -> None:
    inputs = {b: one.draws.get(b, normal)(rng, shape).astype("float32") for b, shape in shapes.items()}
    for blob, array in inputs.items():
        net.blobs[blob].reshape(*array.shape)
        net.blobs[blob].data[...] = array
    net.reshape()
    made = dict.fromkeys(net.blobs, np.zeros(0)) | inputs
    for index in range(len(net.layers)):  # later ones may write over memory that they share
        net._forward(index, index)
        made |= {net._blob_names[top]: net._blobs[top].data.copy() for top in net._top_ids(index)}
    np.savez(place / f"inputs{suffix}.npz", *inputs.values())
    (place / "names.txt").write_text("\n".join(net.blobs), encoding="utf-8")
    (place / "outputs.txt").write_text("\n".join(net.outputs), encoding="utf-8")
    np.savez(place / f"blobs{suffix}.npz", *made.values())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
