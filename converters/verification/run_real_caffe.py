"""Running a net in real Caffe, in a child process, because a failed CHECK in Caffe ends the process."""

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

from converters.common.net_with_weights import NetWithWeights
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.ir import Net
from prototxt_gen.passes.bvlc_equivalents import as_bvlc_layers
from prototxt_gen.schema.dialect import find_dialect

Array = np.ndarray[Any, Any]
_CHILD_SCRIPT = """
import sys, numpy as np, caffe
folder, prototxt, caffemodel = sys.argv[1:]
net = caffe.Net(prototxt, caffemodel, caffe.TEST)
stored = np.load(folder + "/inputs.npz")
names = open(folder + "/input_names.txt", encoding="utf-8", errors="surrogateescape").read().split("\\n")
for index, name in enumerate(names if stored.files else ()):
    array = stored[f"arr_{index}"]
    net.blobs[name].reshape(*array.shape)
    net.blobs[name].data[...] = array
net.reshape()
blobs = {name: blob.data.copy() for name, blob in net.blobs.items() if name in names}
for index in range(len(net.layers)):
    net._forward(index, index)
    for top in net._top_ids(index):
        blobs[net._blob_names[top]] = net._blobs[top].data.copy()
open(folder + "/blob_names.txt", "w", encoding="utf-8", errors="surrogateescape").write("\\n".join(blobs))
np.savez(folder + "/blobs.npz", *blobs.values())
"""
"""Each blob is copied right after its layer has run, because a later layer may overwrite memory that both share."""

_FATAL_LINE = re.compile(r"F\d{4} |\[libprotobuf")
"""Beginning of a line that says why Caffe stopped: fatal lines of glog (F and the date), and those of protobuf."""


def run_pycaffe(model: NetWithWeights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run real Caffe and return every blob by name.

    Caffe reads the original files if they hold exactly this net and it can read them. Otherwise the net is written to
    temporary files. Raises RuntimeMissingError if Caffe is not installed, and PrototxtGenError with Caffe's message if
    Caffe refuses both.
    """
    if find_spec("caffe") is None:
        raise RuntimeMissingError("real Caffe is not installed: prototxt-gen caffe install")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.savez(folder / "inputs.npz", *inputs.values())
        (folder / "input_names.txt").write_text("\n".join(inputs), encoding="utf-8", errors="surrogateescape")
        if model.matches_files and model.prototxt is not None and model.caffemodel is not None:
            try:
                return _run_child(folder, model.prototxt, model.caffemodel)
            except PrototxtGenError:
                pass  # a fork's file: Caffe may still accept the net written in its own format
        try:
            return _run_child(folder, *write_caffe_files(model, folder))
        except PrototxtGenError as error:
            raise PrototxtGenError(f"Caffe does not run this net: {error}") from None


def write_caffe_files(model: NetWithWeights, folder: Path) -> tuple[Path, Path]:
    """Write a prototxt and a .caffemodel that the Caffe we build can read, with Input layers; return both paths."""
    from prototxt_gen.net.render import net_text
    from prototxt_gen.passes.input_layers import with_input_layers
    from prototxt_gen.passes.to_dialect import with_supported_fields
    from prototxt_gen.weights import as_inverse_std, write

    analysis, weights = as_bvlc_layers(with_input_layers(model.analysis), model.weights)
    prototxt, caffemodel = folder / "net.prototxt", folder / "net.caffemodel"
    ours = find_dialect("prototxt-gen")
    net = _without_extras(analysis.net).map(lambda layer: with_supported_fields(layer, ours))
    prototxt.write_text(net_text(net), encoding="utf-8", errors="surrogateescape")
    write(caffemodel, analysis, as_inverse_std(weights, analysis), ours, force=True)
    return prototxt, caffemodel


def _without_extras(net: Net) -> Net:
    """Return the net without unknown fields outside its layers, at which Caffe's parser would stop."""
    return replace(net, params=net.params.without_extras({extra.name for extra in net.params.extras}))


def _run_child(folder: Path, prototxt: Path, caffemodel: Path) -> dict[str, Array]:
    environment = {**os.environ, "GLOG_minloglevel": "2"}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD_SCRIPT, str(folder), str(prototxt), str(caffemodel)],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise PrototxtGenError(_failure_reason(done.stderr) or f"it ended with code {done.returncode}")
    names = (folder / "blob_names.txt").read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    with np.load(folder / "blobs.npz") as stored:
        return {name: stored[f"arr_{index}"] for index, name in enumerate(names)}


def _failure_reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("***")]
    reason = next((line for line in lines if _FATAL_LINE.match(line)), lines[-1] if lines else "")
    return reason.split("] ")[-1].removeprefix("caffe._caffe.CheckError: ")
