"""Running a net in real Caffe, in a process of its own: a failed check there ends the process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from converters.common.net_with_weights import Subject
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.ir import Net

Array = np.ndarray[Any, Any]
_CHILD = """
import sys, numpy as np, caffe
place, net, model = sys.argv[1:]
net = caffe.Net(net, model, caffe.TEST)
stored = np.load(place + "/inputs.npz")
names = open(place + "/names.txt", encoding="utf-8", errors="surrogateescape").read().split("\\n")
for index, name in enumerate(names if stored.files else ()):
    array = stored[f"arr_{index}"]
    net.blobs[name].reshape(*array.shape)
    net.blobs[name].data[...] = array
net.reshape()
made = {name: blob.data.copy() for name, blob in net.blobs.items() if name in names}
for index in range(len(net.layers)):
    net._forward(index, index)
    for top in net._top_ids(index):
        made[net._blob_names[top]] = net._blobs[top].data.copy()
open(place + "/made.txt", "w", encoding="utf-8", errors="surrogateescape").write("\\n".join(made))
np.savez(place + "/blobs.npz", *made.values())
"""
"""Each blob is taken down when its layer has run: later ones may write over memory that they share with it."""

_FATAL = re.compile(r"F\d{4} |\[libprotobuf")
"""How a line begins that tells why Caffe stops: glog's fatal lines, F and the date, and protobuf's."""


def run_pycaffe(subject: Subject, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run real Caffe: on the files as they are, where it can read them, else on the same net written anew.

    RuntimeMissingError where Caffe is not installed; PrototxtGenError with its last words where it refuses both.
    """
    if find_spec("caffe") is None:
        raise RuntimeMissingError("real Caffe is not installed: prototxt-gen caffe install")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        np.savez(place / "inputs.npz", *inputs.values())
        (place / "names.txt").write_text("\n".join(inputs), encoding="utf-8", errors="surrogateescape")
        if subject.as_filed and subject.prototxt is not None and subject.caffemodel is not None:
            try:
                return _run_child(place, subject.prototxt, subject.caffemodel)
            except PrototxtGenError:
                pass  # a fork's file: the same net, written for this Caffe, may do
        try:
            return _run_child(place, *written_anew(subject, place))
        except PrototxtGenError as error:
            raise PrototxtGenError(f"Caffe does not run this net: {error}") from None


def written_anew(subject: Subject, place: Path) -> tuple[Path, Path]:
    """Write the net and its weights into a folder in a form that our Caffe reads, fed by Input layers; return both."""
    from prototxt_gen.net.render import net_text
    from prototxt_gen.passes.bvlc_equivalents import as_stock
    from prototxt_gen.passes.input_layers import with_input_layers
    from prototxt_gen.schema.dialect import dialect
    from prototxt_gen.weights import as_inverse_std, write

    analysis, weights = as_stock(with_input_layers(subject.analysis), subject.weights)
    net, model = place / "net.prototxt", place / "net.caffemodel"
    net.write_text(net_text(_without_extras(analysis.net)), encoding="utf-8", errors="surrogateescape")
    write(model, analysis, as_inverse_std(weights, analysis), dialect("prototxt-gen"), force=True)
    return net, model


def _without_extras(net: Net) -> Net:
    """Return the net without what forks write above all layers and no schema knows: Caffe would not read on."""
    return replace(net, params=net.params.without_extras({extra.name for extra in net.params.extras}))


def _run_child(place: Path, net: Path, model: Path) -> dict[str, Array]:
    environment = {**os.environ, "GLOG_minloglevel": "2"}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(place), str(net), str(model)],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise PrototxtGenError(_last_words(done.stderr) or f"it ended with code {done.returncode}")
    names = (place / "made.txt").read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    with np.load(place / "blobs.npz") as stored:
        return {name: stored[f"arr_{index}"] for index, name in enumerate(names)}


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("***")]
    told = next((line for line in lines if _FATAL.match(line)), lines[-1] if lines else "")
    return told.split("] ")[-1].removeprefix("caffe._caffe.CheckError: ")
