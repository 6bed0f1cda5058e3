"""Runs behaviours in real Caffe: `python -m tests.behaviours.caffe_child FOLDER FIRST`.

For each behaviour from number FIRST on, weights are drawn with its seed and saved by Caffe's net.save. Then the net
runs forward with the declared batch, and with one image more. If Caffe refuses the net, its error is saved.
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

    for index, behaviour in enumerate(BEHAVIOURS[first:], first):
        behaviour_folder = folder / str(index)
        (behaviour_folder / "started").touch()
        try:
            run(caffe, behaviour, behaviour_folder)
        except caffe.CheckError as error:
            (behaviour_folder / "refused.txt").write_text(str(error), encoding="utf-8")
        (behaviour_folder / "done").touch()


def run(caffe: Any, behaviour: Behaviour, folder: Path) -> None:
    """Write the model file, `inputs.npz` and `blobs.npz`; for one image more `inputs2.npz` and `blobs2.npz`."""
    file = str(folder / "caffe.prototxt")
    net = caffe.Net(file, caffe.TEST, level=behaviour.level, stages=list(behaviour.stages) or None)
    rng = np.random.default_rng(behaviour.seed)
    fill(net, behaviour, rng)
    model = storage.STORAGES[behaviour.storage](net, folder)
    if model is not None:
        net = caffe.Net(
            file, caffe.TEST, weights=str(model), level=behaviour.level, stages=list(behaviour.stages) or None
        )
    forward(net, behaviour.shapes, behaviour, rng, folder, "")
    if behaviour.shapes:
        batch = next(iter(behaviour.shapes.values()))[:1]
        more = {blob: (s[0] + 1, *s[1:]) if s and s[:1] == batch else s for blob, s in behaviour.shapes.items()}
        with suppress(caffe.CheckError, ValueError):  # a net for one batch size only, or draws that are
            forward(net, more, behaviour, rng, folder, "2")


def fill(net: Any, behaviour: Behaviour, rng: np.random.Generator) -> None:
    """Draw the learned blobs."""
    types = dict(zip(net._layer_names, (layer.type for layer in net.layers), strict=True))
    for name, blobs in net.params.items():
        draws = behaviour.fills.get(name) or _STATISTICS.get(types[name], ()) or (normal,)
        for index, blob in enumerate(blobs):
            draw = draws[min(index, len(draws) - 1)]
            blob.data[...] = draw(rng, tuple(blob.data.shape)).astype("float32")


def forward(net: Any, shapes: Any, behaviour: Behaviour, rng: np.random.Generator, folder: Path, suffix: str) -> None:
    """Run the net forward and save the inputs and every blob as its layer computed it."""
    inputs = {b: behaviour.draws.get(b, normal)(rng, shape).astype("float32") for b, shape in shapes.items()}
    for blob, array in inputs.items():
        net.blobs[blob].reshape(*array.shape)
        net.blobs[blob].data[...] = array
    net.reshape()
    blobs = dict.fromkeys(net.blobs, np.zeros(0)) | inputs
    for index in range(len(net.layers)):  # later ones may write over memory that they share
        net._forward(index, index)
        blobs |= {net._blob_names[top]: net._blobs[top].data.copy() for top in net._top_ids(index)}
    np.savez(folder / f"inputs{suffix}.npz", *inputs.values())
    (folder / "names.txt").write_text("\n".join(net.blobs), encoding="utf-8")
    (folder / "outputs.txt").write_text("\n".join(net.outputs), encoding="utf-8")
    np.savez(folder / f"blobs{suffix}.npz", *blobs.values())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
