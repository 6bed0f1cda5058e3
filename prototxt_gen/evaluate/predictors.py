"""The runtimes as predictors: a batch of images in, a row of scores for each image out."""

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
from prototxt_gen.common.errors import NetError, PrototxtGenError, RuntimeMissingError, UnsupportedError, nearest
from prototxt_gen.common.optional_packages import need
from prototxt_gen.ir import Shape, Value, show
from prototxt_gen.net.lowering_checks import results

if TYPE_CHECKING:
    from converters.common.net_with_weights import NetWithWeights

Array = npt.NDArray[Any]


class Predictor(Protocol):
    """A net in a runtime, in the TEST phase."""

    name: str

    @property
    def input(self) -> Shape:
        """C×H×W, what one image is."""
        ...

    def __call__(self, batch: Array) -> Array:
        """Return scores N×classes for N×C×H×W, float32."""
        ...

    def close(self) -> None:
        """End what it started; it cannot be used afterwards."""
        ...


def image_input(subject: NetWithWeights) -> Value:
    """Return the net's only input, N×C×H×W; UnsupportedError where it has others, or another shape."""
    found = subject.input_values
    shapes = ", ".join(f"{value.blob} {show(subject.analysis.shapes[value])}" for value in found)
    if len(found) != 1 or len(subject.analysis.shapes[found[0]]) != 4:
        raise UnsupportedError(f"{subject.net.name}: it takes {shapes or 'nothing'}; a net that takes images is needed")
    return found[0]


def score_output(subject: NetWithWeights, blob: str = "") -> Value:
    """Return the output that holds the scores: the one named, else the last."""
    outputs = {value.blob: value for value in results(subject.net)}
    if blob and blob not in outputs:
        raise NetError(f"{subject.net.name}: no output {blob!r}; it has {', '.join(outputs)}{nearest(blob, outputs)}")
    if not outputs:
        raise NetError(f"{subject.net.name}: the net has no output")
    return outputs[blob] if blob else list(outputs.values())[-1]


class TorchPredictor:
    """The net as a PyTorch module, on the CPU or on card number `gpu`."""

    name = "torch"

    def __init__(self, subject: NetWithWeights, output: str = "", gpu: int | None = None) -> None:
        need("torch")
        import torch

        from prototxt_gen.runtime.torch_net import TorchNet

        self.input = subject.analysis.shapes[image_input(subject)][1:]
        self.scores = (score_output(subject, output),)
        self.device = torch.device("cpu" if gpu is None else f"cuda:{gpu}")
        if gpu is not None and gpu >= torch.cuda.device_count():
            raise RuntimeMissingError(f"there is no card {gpu}: PyTorch sees {torch.cuda.device_count()}")
        self.net = TorchNet(subject.analysis, subject.weights).eval().to(self.device)

    def __call__(self, batch: Array) -> Array:
        import torch

        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device)
            (made,) = self.net.forward_blobs([images], self.scores)
        return _rows(made.cpu().numpy(), len(batch), self.name)

    def close(self) -> None:
        """Do nothing."""


class ModulePredictor:
    """A module that was converted: a function from a batch to the scores, of N×C×H×W as `input` says."""

    def __init__(self, name: str, module: Callable[[Any], Any], input_: Shape) -> None:
        self.name, self.module, self.input = name, module, input_

    def __call__(self, batch: Array) -> Array:
        import torch

        with torch.inference_mode():
            made = self.module(torch.from_numpy(np.ascontiguousarray(batch)))
        last = made[-1] if isinstance(made, (tuple, list)) else made
        return _rows(last.numpy(), len(batch), self.name)

    def close(self) -> None:
        """Do nothing."""


class OnnxPredictor:
    """An ONNX file in ONNX Runtime. A model of a fixed batch is given that many images at a time."""

    name = "onnx"

    def __init__(self, path: Path, output: str = "") -> None:
        from converters.verification.runtimes import open_onnx_session

        self.session, self.path = open_onnx_session(path), path
        inputs, outputs = self.session.get_inputs(), [one.name for one in self.session.get_outputs()]
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or not all(isinstance(d, int) for d in inputs[0].shape[1:]):
            shapes = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise UnsupportedError(f"{path}: it takes {shapes}; a model that takes images of one size is needed")
        if output and output not in outputs:
            raise NetError(f"{path}: no output {output!r}; it has {', '.join(outputs)}{nearest(output, outputs)}")
        self.output = output or outputs[-1]
        self.feed = inputs[0].name
        self.fixed = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else 0
        self.input: Shape = tuple(inputs[0].shape[1:])

    def __call__(self, batch: Array) -> Array:
        step = self.fixed or len(batch)
        made = [self._run(batch[start : start + step]) for start in range(0, len(batch), step)]
        return np.concatenate(made)[: len(batch)]

    def _run(self, batch: Array) -> Array:
        missing = max(0, self.fixed - len(batch))
        filled = np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
        with translate_loading_errors(self.path):
            (made,) = self.session.run([self.output], {self.feed: np.ascontiguousarray(filled)})
        return _rows(made, len(filled), self.name)

    def close(self) -> None:
        """Do nothing."""


class CaffePredictor:
    """Real Caffe, in a process of its own: a failed check there ends the process."""

    name = "pycaffe"

    def __init__(self, subject: NetWithWeights, output: str = "") -> None:
        if find_spec("caffe") is None:
            raise RuntimeMissingError("real Caffe is not installed: prototxt-gen caffe install")
        from prototxt_gen.real_caffe.child_process import ChildProcess

        value = image_input(subject)
        self.input = subject.analysis.shapes[value][1:]
        self._stack = ExitStack()
        self.place = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.child = ChildProcess("prototxt_gen.evaluate.caffe_predictor_process", self.place / "log.txt")
        self._stack.callback(self.child.close)
        try:
            self._start(subject, value.blob, score_output(subject, output).blob)
        except BaseException:
            self._stack.close()
            raise

    def _start(self, subject: NetWithWeights, data: str, output: str) -> None:
        """Load the files as they are, where Caffe can read them, else the same net written anew."""
        from converters.verification.run_real_caffe import write_caffe_files

        names = {"input": data, "output": output}
        if subject.matches_files and subject.prototxt is not None and subject.caffemodel is not None:
            try:
                self.child.request("start", net=str(subject.prototxt), weights=str(subject.caffemodel), **names)
                return
            except PrototxtGenError:
                pass  # a fork's file: the same net, written for this Caffe, may do
        net, weights = write_caffe_files(subject, self.place)
        self.child.request("start", net=str(net), weights=str(weights), **names)

    def __call__(self, batch: Array) -> Array:
        np.save(self.place / "batch.npy", batch)
        self.child.request("forward", batch=str(self.place / "batch.npy"), scores=str(self.place / "scores.npy"))
        return _rows(np.load(self.place / "scores.npy"), len(batch), self.name)

    def close(self) -> None:
        """End Caffe's process."""
        self._stack.close()


def _torch(subject: NetWithWeights, output: str, gpu: int | None) -> Predictor:
    return TorchPredictor(subject, output, gpu)


def _onnx(subject: NetWithWeights, output: str, gpu: int | None) -> Predictor:
    """Convert, and run what was converted."""
    need("onnx", "onnxruntime")
    from converters.onnx_export.onnx_writer import save_onnx
    from converters.write_models import convert_to_onnx

    image_input(subject)
    wanted = score_output(subject, output).blob
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save_onnx(convert_to_onnx(subject), path)
        return OnnxPredictor(path, wanted)


def _pycaffe(subject: NetWithWeights, output: str, gpu: int | None) -> Predictor:
    return CaffePredictor(subject, output)


BACKENDS: dict[str, Callable[[NetWithWeights, str, int | None], Predictor]] = {
    "torch": _torch,
    "onnx": _onnx,
    "pycaffe": _pycaffe,
}


def predictor(backend: str, subject: NetWithWeights, output: str = "", gpu: int | None = None) -> Predictor:
    """Return a net in a runtime. RuntimeMissingError where it is not installed, UnsupportedError where it cannot."""
    if backend not in BACKENDS:
        raise PrototxtGenError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}")
    return BACKENDS[backend](subject, output, gpu)


def _rows(scores: Array, count: int, name: str) -> Array:
    """Return scores N×classes; an error where there is not one finite row of numbers for each image."""
    shape: Sequence[int] = scores.shape
    flat = scores.reshape(shape[0], -1) if scores.ndim > 1 and shape[0] == count else None
    if flat is None or any(size != 1 for size in shape[2:]):
        found = show(tuple(shape))
        raise UnsupportedError(f"{name}: the output for {count} images is {found}, not a row of scores for each")
    if not np.isfinite(flat).all():
        raise PrototxtGenError(f"{name}: the net gives scores that are not finite: a diverged run, or wrong weights")
    return flat
