"""The runtimes that can run a net: each takes inputs by blob name and gives back every blob it made, by name.

A blob that is written in place counts as it is at the end, as Caffe itself would show it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.common.net_with_weights import Subject
from prototxt_gen.common.errors import NetError, PrototxtGenError, RuntimeMissingError
from prototxt_gen.common.optional_packages import need

if TYPE_CHECKING:
    import onnx

    from converters.onnx_export.net_to_onnx import OnnxNet

Array = np.ndarray[Any, Any]
Blobs = dict[str, Array]


def run_torch(subject: Subject, inputs: Mapping[str, Array], double: bool = False) -> Blobs:
    """Run the net as a PyTorch module on the CPU, in the TEST phase; `double`: in double precision."""
    need("torch")
    import torch

    from prototxt_gen.runtime.torch_net import TorchNet, as_tensors

    net = TorchNet(subject.analysis, subject.weights).eval()
    given = as_tensors(inputs)
    if double:
        net, given = net.double(), {name: tensor.double() for name, tensor in given.items()}
    with torch.no_grad():
        blobs = net.run(given)
    last = subject.last_values()
    return {name: blobs[value].detach().numpy() for name, value in last.items() if value in blobs}


def run_onnx(subject: Subject, inputs: Mapping[str, Array]) -> Blobs:
    """Convert to ONNX, unfolded so that every blob is there, and run under ONNX Runtime."""
    need("onnx", "onnxruntime")
    from converters.onnx_export.net_to_onnx import lower

    return run_onnx_net(lower(subject.analysis, subject.weights, fold_bn=False), inputs)


def run_onnx_net(net: OnnxNet, inputs: Mapping[str, Array]) -> Blobs:
    """Run a lowered net with every blob as an output."""
    from converters.onnx_export.net_to_onnx import utf8
    from converters.onnx_export.onnx_writer import save

    named = {utf8(name): array for name, array in inputs.items()}
    with tempfile.TemporaryDirectory() as folder:
        save(net, Path(folder) / "model.onnx")
        made = named | run_onnx_file(Path(folder) / "model.onnx", named, list(net.names.values()))
    last = {value.blob: value for value in net.analysis.net.values()}
    return {blob: made[net.names[value]] for blob, value in last.items() if value in net.names}


def run_onnx_of(subject: Subject, path: Path, inputs: Mapping[str, Array]) -> Blobs:
    """Run an ONNX file that was made of the subject; return every blob of the net that is still in it."""
    from converters.onnx_export.net_to_onnx import utf8

    names = {utf8(blob): blob for blob in subject.last_values()}
    made = run_onnx_file(path, {utf8(blob): array for blob, array in inputs.items()}, list(names))
    return {names[name]: array for name, array in made.items() if name in names}


def run_onnx_file(path: Path, inputs: Mapping[str, Array], more: Sequence[str] = ()) -> Blobs:
    """Run an ONNX file; return its outputs, and `more` of the values that its nodes make, by name."""
    need("onnx", "onnxruntime")
    with _with_outputs(path, more) as (session_path, wanted):
        session = onnx_session(session_path)
        names = [one.name for one in session.get_inputs()]
        missing = [name for name in names if name not in inputs]
        if missing:
            raise NetError(f"{path}: its input {missing[0]!r} is not an input of the net")
        outputs = wanted or [one.name for one in session.get_outputs()]
        fed = {name: np.asarray(inputs[name], order="C") for name in names}
        try:
            made = session.run(outputs, fed)
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise PrototxtGenError(f"ONNX Runtime stops: {str(error).strip().splitlines()[0]}") from None
    return dict(zip(outputs, made, strict=True))


def onnx_session(path: Path) -> Any:
    """Return an ONNX Runtime session on the CPU, its warnings silenced."""
    need("onnx", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise PrototxtGenError(f"{path}: ONNX Runtime refuses it: {str(error).strip().splitlines()[0]}") from None


@contextmanager
def _with_outputs(path: Path, more: Sequence[str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield a model that also gives out the values `more`, and the names of all it gives out."""
    if not more:
        yield path, []
        return
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    there = {one.name for one in model.graph.output}
    made = {name for node in model.graph.node for name in node.output}
    model.graph.output.extend(_untyped(name) for name in dict.fromkeys(more) if name in made and name not in there)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".onnx", dir=path.parent)
    os.close(handle)
    try:
        Path(name).write_bytes(model.SerializeToString())
        yield Path(name), [one.name for one in model.graph.output]
    finally:
        Path(name).unlink()


def _untyped(name: str) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_empty_tensor_value_info(name)


def run_opencv(subject: Subject, inputs: Mapping[str, Array]) -> Blobs:
    """Run OpenCV's own Caffe importer on the files as they are; only its outputs can be had. A second opinion only."""
    need("cv2")
    import cv2

    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise RuntimeMissingError("this OpenCV has no Caffe importer: pip install 'opencv-python-headless<5'")
    if not subject.as_filed or subject.caffemodel is None:
        raise PrototxtGenError("OpenCV can only run a deploy net as it is filed, with its declared inputs")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with quiet_stderr():
            return _opencv_blobs(cv2, subject, inputs)
    except cv2.error as error:
        raise PrototxtGenError(f"OpenCV does not run this net: {_last_line(str(error))}") from None


def _opencv_blobs(cv2: Any, subject: Subject, inputs: Mapping[str, Array]) -> Blobs:
    net = cv2.dnn.readNetFromCaffe(str(subject.prototxt), str(subject.caffemodel))
    for name, array in inputs.items():
        net.setInput(array, name)
    outputs = net.getUnconnectedOutLayersNames()
    layers = dict(zip(outputs, net.forward(outputs), strict=True))
    makers = {layer.name: layer for layer in subject.net.layers if layer.tops}
    found = {}
    for name, array in layers.items():
        maker = makers.get(name)
        padded = maker is not None and maker.type == "DetectionOutput"
        found[maker.tops[0].blob if maker else name] = _found_rows(array) if padded else array
    return found


def _found_rows(array: Array) -> Array:
    """Return detections without what OpenCV adds: rows of zeros, up to keep_top_k, where Caffe gives what it found."""
    there = np.flatnonzero(np.abs(array[0, 0]).sum(axis=1))
    return array[:, :, : there[-1] + 1 if len(there) else 0]


def _last_line(text: str) -> str:
    """Return what OpenCV's error says: the line that names the failed check."""
    lines = [line.strip() for line in text.splitlines() if "error: (" in line]
    return (lines or text.strip().splitlines() or ["it does not say why"])[0]


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Silence what C++ libraries write to stderr past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _run_pycaffe(subject: Subject, inputs: Mapping[str, Array]) -> Blobs:
    from converters.verification.run_real_caffe import run_pycaffe

    return run_pycaffe(subject, inputs)


Runtime = Callable[[Subject, Mapping[str, Array]], Blobs]
RUNTIMES: dict[str, Runtime] = {
    "pycaffe": _run_pycaffe,
    "torch": run_torch,
    "onnx": run_onnx,
    "opencv": run_opencv,
}
"""In the order of trust: the first that runs is what the others are compared with."""
