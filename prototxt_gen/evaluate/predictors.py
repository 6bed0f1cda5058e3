"""Predictors for PyTorch, ONNX Runtime and real Caffe: a batch of images in, a row of scores for each image out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from converters.common.loading_errors import translate_loading_errors
from converters.common.names import stored_names, valid_utf8
from prototxt_gen.common.errors import NetError, PrototxtGenError, RuntimeMissingError, UnsupportedError, nearest
from prototxt_gen.common.optional_packages import need
from prototxt_gen.ir import Shape, Value, show
from prototxt_gen.net.lowering_checks import computed_outputs, last_output
from prototxt_gen.net.prototxt_reader import parse_net

if TYPE_CHECKING:
    from converters.common.net_with_weights import NetWithWeights

Array = npt.NDArray[Any]


class Predictor(Protocol):
    """A net in a runtime, in the TEST phase. Calling it with a batch N×C×H×W returns scores N×classes."""

    name: str

    @property
    def input(self) -> Shape:
        """Shape C×H×W of one image."""
        ...

    def __call__(self, batch: Array) -> Array:
        """Return the scores N×classes, float32, of a batch N×C×H×W."""
        ...

    def close(self) -> None:
        """Release the resources of the predictor; it cannot be used afterwards."""
        ...


def image_input(caffe_model: NetWithWeights) -> Value:
    """Return the net's only input, N×C×H×W. Raises UnsupportedError if it has several, or one of another shape."""
    inputs = caffe_model.input_values
    shapes = ", ".join(f"{value.blob} {show(caffe_model.analysis.shapes[value])}" for value in inputs)
    if len(inputs) != 1 or len(caffe_model.analysis.shapes[inputs[0]]) != 4:
        has = f"its inputs are {shapes}" if shapes else "it has no input"
        raise UnsupportedError(f"{caffe_model.net.name}: {has}; a net with one input N×C×H×W is needed")
    return inputs[0]


def score_output(caffe_model: NetWithWeights, blob: str = "") -> Value:
    """Return the output with the scores: the blob of this name, default that of the last layer. Raises NetError."""
    outputs = {value.blob: value for value in computed_outputs(caffe_model.net)}
    if blob and blob not in outputs:
        raise NetError(
            f"{caffe_model.net.name}: no output {blob!r}; it has {', '.join(outputs)}{nearest(blob, outputs)}"
        )
    output = outputs[blob] if blob else last_output(caffe_model.net)
    if output is None:
        raise NetError(f"{caffe_model.net.name}: the net has no output")
    return output


def main_output_of_prototxt(text: str, source: str) -> str:
    """Return the name of the output of the last layer, as converted files write it; empty without any output."""
    output = last_output(parse_net(text, source))
    return valid_utf8(output.blob) if output is not None else ""


class TorchPredictor:
    """The net as a PyTorch module, on the CPU or on GPU number `gpu`. Raises RuntimeMissingError if it is missing."""

    name = "torch"

    def __init__(self, caffe_model: NetWithWeights, output: str = "", gpu: int | None = None) -> None:
        need("torch")
        import torch

        from prototxt_gen.runtime.torch_net import TorchNet

        self.input = caffe_model.analysis.shapes[image_input(caffe_model)][1:]
        self.scores = (score_output(caffe_model, output),)
        self.device = torch.device("cpu" if gpu is None else f"cuda:{gpu}")
        if gpu is not None and gpu >= torch.cuda.device_count():
            raise RuntimeMissingError(f"there is no GPU {gpu}: PyTorch has {torch.cuda.device_count()}")
        self.net = TorchNet(caffe_model.analysis, caffe_model.weights).eval().to(self.device)

    def __call__(self, batch: Array) -> Array:
        import torch

        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device)
            (scores,) = self.net.forward_blobs([images], self.scores)
        return _score_rows(scores.cpu().numpy(), len(batch), self.name)

    def close(self) -> None:
        """Do nothing."""


class ModulePredictor:
    """A converted PyTorch module: a function from a batch to its output, or to several, of which `output` is used."""

    def __init__(self, name: str, module: Callable[[Any], Any], input_: Shape, output: int = -1) -> None:
        self.name, self.module, self.input, self.output = name, module, input_, output

    def __call__(self, batch: Array) -> Array:
        import torch

        with torch.inference_mode():
            outputs = self.module(torch.from_numpy(np.ascontiguousarray(batch)))
        scores = outputs[self.output] if isinstance(outputs, (tuple, list)) else outputs
        return _score_rows(scores.numpy(), len(batch), self.name)

    def close(self) -> None:
        """Do nothing."""


class OnnxPredictor:
    """An ONNX file in ONNX Runtime. A model with a fixed batch size gets that many images at a time.

    Raises UnsupportedError unless the model has one input N×C×H×W, and NetError for an unknown output.
    """

    name = "onnx"

    def __init__(self, path: Path, output: str = "") -> None:
        from converters.verification.runtimes import open_onnx_session

        self.session, self.path = open_onnx_session(path), path
        inputs, outputs = self.session.get_inputs(), [one.name for one in self.session.get_outputs()]
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or not all(isinstance(d, int) for d in inputs[0].shape[1:]):
            shapes = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise UnsupportedError(
                f"{path}: its inputs are {shapes}; a model with images of one size as input is needed"
            )
        metadata = self.session.get_modelmeta().custom_metadata_map
        stored, (_, blob_names) = metadata.get("caffe.prototxt", ""), stored_names(metadata)
        output = blob_names.get(output, output)
        if output and output not in outputs:
            raise NetError(f"{path}: no output {output!r}; it has {', '.join(outputs)}{nearest(output, outputs)}")
        main_output = main_output_of_prototxt(stored, str(path)) if stored else ""
        main_output = blob_names.get(main_output, main_output)
        self.output = output or (main_output if main_output in outputs else outputs[-1])
        self.input_name = inputs[0].name
        self.fixed_batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else 0
        self.input: Shape = tuple(inputs[0].shape[1:])

    def __call__(self, batch: Array) -> Array:
        step = self.fixed_batch or len(batch)
        scores = [self._run(batch[start : start + step]) for start in range(0, len(batch), step)]
        return np.concatenate(scores)[: len(batch)]

    def _run(self, batch: Array) -> Array:
        missing = max(0, self.fixed_batch - len(batch))
        filled = np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
        with translate_loading_errors(self.path):
            (scores,) = self.session.run([self.output], {self.input_name: np.ascontiguousarray(filled)})
        return _score_rows(scores, len(filled), self.name)

    def close(self) -> None:
        """Do nothing."""


class CaffePredictor:
    """Real Caffe, in a separate process, because a failed check in Caffe ends its process."""

    name = "pycaffe"

    def __init__(self, caffe_model: NetWithWeights, output: str = "") -> None:
        if find_spec("caffe") is None:
            raise RuntimeMissingError("real Caffe is not installed: prototxt-gen caffe install")
        from prototxt_gen.real_caffe.child_process import ChildProcess

        value = image_input(caffe_model)
        self.input = caffe_model.analysis.shapes[value][1:]
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.child = ChildProcess("prototxt_gen.evaluate.caffe_predictor_process", self.folder / "log.txt")
        self._stack.callback(self.child.close)
        try:
            self._start(caffe_model, value.blob, score_output(caffe_model, output).blob)
        except BaseException:
            self._stack.close()
            raise

    def _start(self, caffe_model: NetWithWeights, data: str, output: str) -> None:
        """Load the net in Caffe from its original files or, if Caffe cannot read them, from files written for it."""
        from converters.verification.run_real_caffe import write_caffe_files

        names = {"input": data, "output": output}
        if caffe_model.matches_files and caffe_model.prototxt is not None and caffe_model.caffemodel is not None:
            try:
                self.child.request("start", net=str(caffe_model.prototxt), weights=str(caffe_model.caffemodel), **names)
                return
            except PrototxtGenError:
                pass  # perhaps the files of a fork; the same net, written for this Caffe, may work
        net, weights = write_caffe_files(caffe_model, self.folder)
        self.child.request("start", net=str(net), weights=str(weights), **names)

    def __call__(self, batch: Array) -> Array:
        np.save(self.folder / "batch.npy", batch)
        self.child.request("forward", batch=str(self.folder / "batch.npy"), scores=str(self.folder / "scores.npy"))
        return _score_rows(np.load(self.folder / "scores.npy"), len(batch), self.name)

    def close(self) -> None:
        """End the process of Caffe."""
        self._stack.close()


def _make_torch_predictor(caffe_model: NetWithWeights, output: str, gpu: int | None) -> Predictor:
    return TorchPredictor(caffe_model, output, gpu)


def _make_onnx_predictor(caffe_model: NetWithWeights, output: str, gpu: int | None) -> Predictor:
    """Convert the net to ONNX and return a predictor for the ONNX model."""
    need("onnx", "onnxruntime")
    from converters.onnx_export.onnx_writer import save_onnx
    from converters.write_models import convert_to_onnx

    image_input(caffe_model)
    wanted = score_output(caffe_model, output).blob
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save_onnx(convert_to_onnx(caffe_model), path)
        return OnnxPredictor(path, wanted)


def _make_caffe_predictor(caffe_model: NetWithWeights, output: str, gpu: int | None) -> Predictor:
    return CaffePredictor(caffe_model, output)


BACKENDS: dict[str, Callable[[NetWithWeights, str, int | None], Predictor]] = {
    "torch": _make_torch_predictor,
    "onnx": _make_onnx_predictor,
    "pycaffe": _make_caffe_predictor,
}


def make_predictor(backend: str, caffe_model: NetWithWeights, output: str = "", gpu: int | None = None) -> Predictor:
    """Return a predictor for a net in a runtime, which is one of BACKENDS; `gpu` is used by "torch" only.

    Raises RuntimeMissingError if the runtime is not installed, UnsupportedError if it cannot run the net.
    """
    if backend not in BACKENDS:
        raise PrototxtGenError(f"unknown backend {backend!r}; possible values are {', '.join(BACKENDS)}")
    return BACKENDS[backend](caffe_model, output, gpu)


def _score_rows(scores: Array, count: int, name: str) -> Array:
    """Return scores as N×classes. Raises an error unless they are finite and have one row for each image."""
    shape: Sequence[int] = scores.shape
    flat = scores.reshape(shape[0], -1) if scores.ndim > 1 and shape[0] == count else None
    if flat is None or any(size != 1 for size in shape[2:]):
        raise UnsupportedError(
            f"{name}: the output for {count} images is {show(tuple(shape))}, not a row of scores for each image"
        )
    if not np.isfinite(flat).all():
        raise PrototxtGenError(f"{name}: the scores are not finite: training has diverged, or the weights are wrong")
    return flat
