"""The runtimes that can run a net: PyTorch, ONNX Runtime, OpenCV and real Caffe.

Each function takes input arrays by blob name and returns the arrays of the computed blobs, by name. A blob that layers
change in place is returned as it is after the last of them, as in Caffe.
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

from converters.common.names import stored_names, valid_utf8
from converters.common.net_with_weights import NetWithWeights
from prototxt_gen.common.errors import NetError, PrototxtGenError, RuntimeMissingError
from prototxt_gen.common.optional_packages import need
from prototxt_gen.net.lowering_checks import net_inputs

if TYPE_CHECKING:
    import onnx

    from converters.onnx_export.net_to_onnx import OnnxNet

Array = np.ndarray[Any, Any]
Blobs = dict[str, Array]


def run_torch(model: NetWithWeights, inputs: Mapping[str, Array], double: bool = False) -> Blobs:
    """Run the net as a PyTorch module on the CPU, in the TEST phase. `double`: in double precision."""
    need("torch")
    import torch

    from prototxt_gen.runtime.torch_net import TorchNet, as_tensors

    net = TorchNet(model.analysis, model.weights).eval()
    tensors = as_tensors(inputs)
    if double:
        net, tensors = net.double(), {name: tensor.double() for name, tensor in tensors.items()}
    with torch.no_grad():
        blobs = net.run(tensors)
    last = model.last_values()
    return {name: blobs[value].detach().numpy() for name, value in last.items() if value in blobs}


def convert_and_run_onnx(model: NetWithWeights, inputs: Mapping[str, Array]) -> Blobs:
    """Convert the net to ONNX and run it in ONNX Runtime. Batch normalisation is not folded, so every blob exists."""
    need("onnx", "onnxruntime")
    from converters.onnx_export.net_to_onnx import lower_to_onnx

    return run_onnx_net(lower_to_onnx(model.analysis, model.weights, fold_bn=False), inputs)


def run_onnx_net(net: OnnxNet, inputs: Mapping[str, Array]) -> Blobs:
    """Run a net that was converted to ONNX in memory; return every blob."""
    from converters.onnx_export.onnx_writer import save_onnx

    named = {net.names[value]: inputs[value.blob] for value in net_inputs(net.analysis.net) if value.blob in inputs}
    with tempfile.TemporaryDirectory() as folder:
        save_onnx(net, Path(folder) / "model.onnx")
        values = named | run_onnx_file(Path(folder) / "model.onnx", named, list(net.names.values()))
    last = {value.blob: value for value in net.analysis.net.values()}
    return {blob: values[net.names[value]] for blob, value in last.items() if value in net.names}


def run_onnx_export(model: NetWithWeights, path: Path, inputs: Mapping[str, Array]) -> Blobs:
    """Run an ONNX file that the net was converted to; return every blob of the net that the file still has."""
    need("onnx", "onnxruntime")
    input_names, blob_names = stored_names(_onnx_metadata(path))
    names = {blob_names.get(blob, valid_utf8(blob)): blob for blob in model.last_values()}
    feeds = {input_names.get(blob, valid_utf8(blob)): array for blob, array in inputs.items()}
    values = run_onnx_file(path, feeds, list(names))
    return {names[name]: array for name, array in values.items() if name in names}


def _onnx_metadata(path: Path) -> dict[str, str]:
    import onnx

    return {entry.key: entry.value for entry in onnx.load(str(path), load_external_data=False).metadata_props}


def run_onnx_file(path: Path, inputs: Mapping[str, Array], extra_outputs: Sequence[str] = ()) -> Blobs:
    """Run an ONNX file; return its outputs, and the inner values named in `extra_outputs` that it has, by name.

    Raises NetError if an input is missing, and PrototxtGenError if ONNX Runtime fails.
    """
    need("onnx", "onnxruntime")
    with _with_extra_outputs(path, extra_outputs) as (session_path, all_outputs):
        session = open_onnx_session(session_path)
        names = [value.name for value in session.get_inputs()]
        missing = [name for name in names if name not in inputs]
        if missing:
            raise NetError(f"{path}: its input {missing[0]!r} is not an input of the net")
        outputs = all_outputs or [value.name for value in session.get_outputs()]
        feeds = {name: np.asarray(inputs[name], order="C") for name in names}
        try:
            arrays = session.run(outputs, feeds)
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise PrototxtGenError(f"ONNX Runtime stops: {str(error).strip().splitlines()[0]}") from None
    return dict(zip(outputs, arrays, strict=True))


def open_onnx_session(path: Path) -> Any:
    """Return an ONNX Runtime session on the CPU without warnings. Raises PrototxtGenError if it fails to open."""
    need("onnx", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise PrototxtGenError(f"{path}: ONNX Runtime refuses it: {str(error).strip().splitlines()[0]}") from None


@contextmanager
def _with_extra_outputs(path: Path, extra_outputs: Sequence[str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield a model file that has `extra_outputs` as outputs too, and the names of all its outputs."""
    if not extra_outputs:
        yield path, []
        return
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    present = {value.name for value in model.graph.output}
    computed = {name for node in model.graph.node for name in node.output}
    added = [name for name in dict.fromkeys(extra_outputs) if name in computed and name not in present]
    model.graph.output.extend(map(_untyped_value, added))
    handle, name = tempfile.mkstemp(prefix=".", suffix=".onnx", dir=path.parent)
    os.close(handle)
    try:
        Path(name).write_bytes(model.SerializeToString())
        yield Path(name), [value.name for value in model.graph.output]
    finally:
        Path(name).unlink()


def _untyped_value(name: str) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_empty_tensor_value_info(name)


def run_opencv(model: NetWithWeights, inputs: Mapping[str, Array]) -> Blobs:
    """Run OpenCV's own Caffe importer on the original files; return the net's outputs only.

    Raises RuntimeMissingError if OpenCV has no Caffe importer, and PrototxtGenError if it cannot run the net.
    """
    need("cv2")
    import cv2

    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise RuntimeMissingError("this OpenCV has no Caffe importer: pip install 'opencv-python-headless<5'")
    if not model.matches_files or model.caffemodel is None:
        raise PrototxtGenError("OpenCV can only run an unchanged deploy net from its files, with declared inputs")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with quiet_stderr():
            return _opencv_blobs(cv2, model, inputs)
    except cv2.error as error:
        raise PrototxtGenError(f"OpenCV does not run this net: {_opencv_error_line(str(error))}") from None


def _opencv_blobs(cv2: Any, model: NetWithWeights, inputs: Mapping[str, Array]) -> Blobs:
    net = cv2.dnn.readNetFromCaffe(str(model.prototxt), str(model.caffemodel))
    for name, array in inputs.items():
        net.setInput(array, name)
    outputs = net.getUnconnectedOutLayersNames()
    by_layer = dict(zip(outputs, net.forward(outputs), strict=True))
    layers = {layer.name: layer for layer in model.net.layers if layer.tops}
    blobs = {}
    for name, array in by_layer.items():
        layer = layers.get(name)
        is_padded = layer is not None and layer.type == "DetectionOutput"
        blobs[layer.tops[0].blob if layer else name] = _without_padding_rows(array) if is_padded else array
    return blobs


def _without_padding_rows(array: Array) -> Array:
    """Return detections without the rows of zeros that OpenCV adds up to keep_top_k, and Caffe does not."""
    nonzero = np.flatnonzero(np.abs(array[0, 0]).sum(axis=1))
    return array[:, :, : nonzero[-1] + 1 if len(nonzero) else 0]


def _opencv_error_line(text: str) -> str:
    """Return the line of an OpenCV error that names the failed check."""
    lines = [line.strip() for line in text.splitlines() if "error: (" in line]
    return (lines or text.strip().splitlines() or ["it gives no reason"])[0]


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard what C++ libraries write to stderr directly, without Python."""
    sys.stderr.flush()
    original = os.dup(2)
    try:
        with Path(os.devnull).open("w") as null_device:
            os.dup2(null_device.fileno(), 2)
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)


def _run_pycaffe(model: NetWithWeights, inputs: Mapping[str, Array]) -> Blobs:
    from converters.verification.run_real_caffe import run_pycaffe

    return run_pycaffe(model, inputs)


Runtime = Callable[[NetWithWeights, Mapping[str, Array]], Blobs]
RUNTIMES: dict[str, Runtime] = {
    "pycaffe": _run_pycaffe,
    "torch": run_torch,
    "onnx": convert_and_run_onnx,
    "opencv": run_opencv,
}
"""The runtimes by name, most trusted first: the first one that runs is the reference for the others."""
