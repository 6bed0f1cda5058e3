"""The runtimes that can run a net: each takes inputs by blob name and gives back every blob it made, by name.

A blob that is written in place counts as it is at the end, as Caffe itself would show it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.to_onnx import OnnxNet, numpy_session, to_onnx
from prototxt_gen.analysis import Analysis
from prototxt_gen.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.ir import Value
from prototxt_gen.weights import Weights

Array = np.ndarray[Any, Any]
Blobs = dict[str, Array]


@dataclass(frozen=True)
class Subject:
    """What is to be run: a net of one phase with its weights, and the files they came from."""

    analysis: Analysis
    weights: Weights
    prototxt: Path
    caffemodel: Path
    model: Path | None = None
    """An ONNX file to run instead of a fresh conversion."""

    def last_values(self) -> dict[str, Value]:
        """Return each blob's last value."""
        return {value.blob: value for value in self.analysis.net.values()}


def run_torch(subject: Subject, inputs: Mapping[str, Array]) -> Blobs:
    """Run the net as a PyTorch module on the CPU, in the TEST phase."""
    try:
        import torch
    except ImportError:
        raise RuntimeMissingError("PyTorch is not installed: pip install 'prototxt-gen[torch]'") from None
    from prototxt_gen.torch_net import TorchNet, as_tensors

    net = TorchNet(subject.analysis, subject.weights).eval()
    with torch.no_grad():
        blobs = net.run(as_tensors(inputs))
    last = subject.last_values()
    return {name: blobs[value].numpy() for name, value in last.items() if value in blobs}


def run_onnx(subject: Subject, inputs: Mapping[str, Array]) -> Blobs:
    """Convert to ONNX, unfolded so that every blob is there, and run under ONNX Runtime; or run the model given."""
    if subject.model is not None:
        return _run_onnx_file(subject.model, inputs)
    net = to_onnx(subject.analysis, subject.weights, fold_bn=False)
    return run_onnx_net(net, inputs)


def run_onnx_net(net: OnnxNet, inputs: Mapping[str, Array]) -> Blobs:
    """Run a lowered net with every blob as an output."""
    last = {value.blob: value for value in net.analysis.net.values()}
    names = {blob: net.names[value] for blob, value in last.items() if value in net.names}
    wanted = sorted(set(names.values()) - set(net.inputs))
    session = numpy_session(net.model(), [name for name in wanted if name not in net.outputs])
    made = dict(zip(wanted, session.run(wanted, {n: inputs[n] for n in net.inputs}), strict=True))
    made |= {name: inputs[name] for name in net.inputs}
    return {blob: made[name] for blob, name in names.items() if name in made}


def _run_onnx_file(path: Path, inputs: Mapping[str, Array]) -> Blobs:
    try:
        import onnxruntime
    except ImportError:
        raise RuntimeMissingError("ONNX Runtime is not installed: pip install 'prototxt-gen[onnx]'") from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = [output.name for output in session.get_outputs()]
    feeds = {one.name: inputs[one.name] for one in session.get_inputs() if one.name in inputs}
    return dict(zip(wanted, session.run(wanted, feeds), strict=True))


def run_pycaffe(subject: Subject, inputs: Mapping[str, Array]) -> Blobs:
    """Run real Caffe in a process of its own: first on the files as they are, else on the same net written anew.

    RuntimeMissingError where Caffe is not installed; PrototxtGenError with its last words where it refuses both.
    """
    if not _has_caffe():
        raise RuntimeMissingError("real Caffe is not installed: prototxt-gen caffe install")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        np.savez(place / "inputs.npz", *inputs.values())
        (place / "names.txt").write_text("\n".join(inputs), encoding="utf-8", errors="surrogateescape")
        words = []
        for prepare in (_as_they_are, _written_anew):
            try:
                return _run_child(place, *prepare(subject, place))
            except PrototxtGenError as error:
                words.append(str(error))
        raise PrototxtGenError(f"Caffe does not run this net: {words[-1]}")


def _has_caffe() -> bool:
    from importlib.util import find_spec

    return find_spec("caffe") is not None


def _as_they_are(subject: Subject, place: Path) -> tuple[Path, Path]:
    """Caffe reads the user's own files, if its schema knows all their fields and the inputs are the net's own."""
    if any(layer.line == 0 for layer in subject.analysis.net.layers) or not subject.analysis.net.inputs:
        raise PrototxtGenError("the files have no inputs to feed")
    shaped = [value.shape == subject.analysis.shapes.get(value) for value in subject.analysis.net.inputs]
    if not all(shaped):
        raise PrototxtGenError("the file has other input shapes")
    return subject.prototxt, subject.caffemodel


def _written_anew(subject: Subject, place: Path) -> tuple[Path, Path]:
    from prototxt_gen.dialect import dialect
    from prototxt_gen.passes.inputs import with_input_layers
    from prototxt_gen.render import net_text
    from prototxt_gen.weights import as_inverse_std, write

    analysis = with_input_layers(subject.analysis)
    net, model = place / "net.prototxt", place / "net.caffemodel"
    net.write_text(net_text(analysis.net), encoding="utf-8", errors="surrogateescape")
    write(model, analysis, as_inverse_std(subject.weights, analysis), dialect("prototxt-gen"), force=True)
    return net, model


_CHILD = """
import sys, numpy as np, caffe
place, net, model = sys.argv[1:]
net = caffe.Net(net, model, caffe.TEST)
stored = np.load(place + "/inputs.npz")
names = open(place + "/names.txt", encoding="utf-8", errors="surrogateescape").read().split("\\n")
for index, name in enumerate(names):
    array = stored[f"arr_{index}"]
    net.blobs[name].reshape(*array.shape)
    net.blobs[name].data[...] = array
net.reshape()
net.forward()
made = list(net.blobs)
open(place + "/made.txt", "w", encoding="utf-8", errors="surrogateescape").write("\\n".join(made))
np.savez(place + "/blobs.npz", *[net.blobs[name].data for name in made])
"""


def _run_child(place: Path, net: Path, model: Path) -> Blobs:
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
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("***")]
        told = next((line for line in lines if line.startswith(("F", "[libprotobuf"))), lines[-1] if lines else "")
        raise PrototxtGenError(told.split("] ")[-1] or f"it ended with code {done.returncode}")
    names = (place / "made.txt").read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    with np.load(place / "blobs.npz") as stored:
        return {name: stored[f"arr_{index}"] for index, name in enumerate(names)}


def run_opencv(subject: Subject, inputs: Mapping[str, Array]) -> Blobs:
    """Run OpenCV's own Caffe importer on the files as they are; only its outputs can be had. A second opinion only."""
    try:
        import cv2
    except ImportError:
        raise RuntimeMissingError("OpenCV is not installed: pip install 'opencv-python-headless<5'") from None
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise RuntimeMissingError("this OpenCV has no Caffe importer: pip install 'opencv-python-headless<5'")
    try:
        net = cv2.dnn.readNetFromCaffe(str(subject.prototxt), str(subject.caffemodel))
        for name, array in inputs.items():
            net.setInput(array, name)
        outputs = net.getUnconnectedOutLayersNames()
        return dict(zip(outputs, net.forward(outputs), strict=True))
    except cv2.error as error:
        raise PrototxtGenError(f"OpenCV does not run this net: {str(error).strip().splitlines()[-1]}") from None


Runtime = Callable[[Subject, Mapping[str, Array]], Blobs]
RUNTIMES: dict[str, Runtime] = {
    "pycaffe": run_pycaffe,
    "torch": run_torch,
    "onnx": run_onnx,
    "opencv": run_opencv,
}
"""In the order of trust: the first that runs is what the others are compared with."""
