"""Every behaviour of `tests.behaviours` in ONNX Runtime, PyTorch and model.py, compared with real Caffe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.common.net_with_weights import NetWithWeights, ReadOptions, read_net_with_weights
from converters.onnx_export import onnx_writer
from converters.onnx_export.net_to_onnx import OnnxNet, lower_to_onnx
from converters.verification.runtimes import run_onnx_file
from prototxt_gen import weights
from prototxt_gen.analysis import Analysis
from prototxt_gen.checks import ERROR, check_net
from prototxt_gen.common.errors import NetError, PrototxtGenError
from prototxt_gen.net.lowering_checks import analyse_for_conversion
from prototxt_gen.net.prototxt_reader import read_net, read_prototxt_bytes
from prototxt_gen.text import parse
from prototxt_gen.weights import Weights
from tests.behaviours import BEHAVIOURS
from tests.behaviours.notation import Behaviour
from tests.support.caffe_support import caffe_or_skip

Array = np.ndarray[Any, Any]
Blobs = Mapping[str, Array]
pytestmark = pytest.mark.caffe
CASES = [pytest.param(i, id=behaviour.name.replace(" ", "_")) for i, behaviour in enumerate(BEHAVIOURS)]


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what Caffe computes for every behaviour, in one subfolder for each."""
    caffe_or_skip()
    folder = tmp_path_factory.mktemp("behaviours")
    for index, behaviour in enumerate(BEHAVIOURS):
        (folder / str(index)).mkdir()
        (folder / str(index) / "net.prototxt").write_text(behaviour.prototxt(), encoding="utf-8")
        (folder / str(index) / "caffe.prototxt").write_text(behaviour.caffe_prototxt(), encoding="utf-8")
    first = 0
    while first < len(BEHAVIOURS):  # once, unless a net ends the process
        first = run_caffe(folder, first)
    return folder


def run_caffe(folder: Path, first: int) -> int:
    """Run Caffe from behaviour number `first` on; return the number of the first one that is not done."""
    environment = {**os.environ, "GLOG_minloglevel": "2", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.behaviours.caffe_child", str(folder), str(first)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    undone = [i for i in range(first, len(BEHAVIOURS)) if not (folder / str(i) / "done").exists()]
    if not undone:
        return len(BEHAVIOURS)
    stuck = undone[0]
    if not (folder / str(stuck) / "started").exists():
        pytest.fail(f"Caffe cannot be run: {done.stderr[-2000:]}")
    (folder / str(stuck) / "refused.txt").write_text(f"the process ended: {done.stderr[-300:]}", encoding="utf-8")
    (folder / str(stuck) / "done").touch()
    return stuck + 1


class BehaviourCase:
    """The files of one behaviour and what Caffe computed for it."""

    def __init__(self, folder: Path, index: int) -> None:
        self.behaviour: Behaviour = BEHAVIOURS[index]
        self.folder = folder / str(index)
        refusal = self.folder / "refused.txt"
        self.refusal = refusal.read_text(encoding="utf-8") if refusal.exists() else ""

    @property
    def model(self) -> Path:
        return next(p for p in (self.folder / "net.caffemodel", self.folder / "net.caffemodel.h5") if p.exists())

    def arrays(self, name: str, keys: Sequence[str]) -> Blobs | None:
        """Return the arrays of a file, or None if Caffe did not write it."""
        file = self.folder / f"{name}.npz"
        if not file.exists():
            return None
        with np.load(file) as stored:
            return {key: stored[f"arr_{index}"] for index, key in enumerate(keys)}

    def inputs(self, suffix: str = "") -> Blobs | None:
        return self.arrays(f"inputs{suffix}", list(self.behaviour.shapes))

    def blobs(self, suffix: str = "") -> Blobs | None:
        """Return all blobs as Caffe computed them, or None if it does not run with this batch size."""
        return self.arrays(f"blobs{suffix}", (self.folder / "names.txt").read_text(encoding="utf-8").split("\n"))

    def outputs(self) -> list[str]:
        return (self.folder / "outputs.txt").read_text(encoding="utf-8").split("\n")

    def analysis(self) -> Analysis:
        behaviour = self.behaviour
        net = read_net(self.folder / "net.prototxt")
        return analyse_for_conversion(net.at("TEST", (*behaviour.stages, *net.params.state.stage), behaviour.level))

    def weights(self, analysis: Analysis) -> Weights:
        return weights.read(self.model, analysis, self.behaviour.dialect, self.behaviour.statistic)

    def caffe_model(self) -> NetWithWeights:
        behaviour = self.behaviour
        how = ReadOptions(
            stages=behaviour.stages, level=behaviour.level, dialect=behaviour.dialect, bn_statistic=behaviour.statistic
        )
        return read_net_with_weights(self.folder / "net.prototxt", self.model, how)

    def compare(self, got: Blobs, wanted: Blobs, what: str) -> None:
        for name in got.keys() & wanted.keys() if self.behaviour.caffe_layers else got:
            array = got[name]
            close(array, wanted[name], self.behaviour.tolerance, f"{what}, blob {name!r}")


def close(got: Array, wanted: Array, tolerance: float, what: str) -> None:
    assert got.shape == wanted.shape, f"{what}: shape {got.shape}, Caffe has {wanted.shape}"
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(np.where(finite, 0, got), np.where(finite, 0, wanted), what)
    scale = np.abs(wanted[finite]).max(initial=1e-6)
    error = np.abs(np.where(finite, got, 0) - np.where(finite, wanted, 0)).max(initial=0) / scale
    assert error <= tolerance, f"{what}: off by {error:.2g} of the largest value"


@pytest.fixture(params=CASES)
def case(records: Path, request: pytest.FixtureRequest) -> Iterator[BehaviourCase]:
    yield BehaviourCase(records, request.param)


def test_behaviour(case: BehaviourCase, tmp_path: Path) -> None:
    if case.behaviour.refused:
        assert case.refusal, "Caffe runs it"
        check_refused(case)
        return
    assert not case.refusal, f"Caffe refuses it: {case.refusal}"
    if case.behaviour.refused_here:
        with pytest.raises(PrototxtGenError):
            check_torch(case)
        return
    check_torch(case)
    if case.behaviour.onnx:
        check_onnx(case, tmp_path)
        check_folder(case, tmp_path)


def check_refused(case: BehaviourCase) -> None:
    """The net or its weights are refused with a clear error, or `check` reports an error."""
    file = case.folder / "net.prototxt"
    with pytest.raises(PrototxtGenError) as caught:
        analysis = case.analysis()
        if any(case.folder.glob("net.caffemodel*")):
            weights.read(case.model, analysis)
        for problem in check_net(read_net(file), parse(read_prototxt_bytes(file))):
            if problem.severity == ERROR:
                raise NetError(problem.message)
    assert str(caught.value)


def check_torch(case: BehaviourCase) -> None:
    """All blobs match, with the declared batch and, if Caffe accepts it, with one image more."""
    import torch

    from prototxt_gen.runtime.torch_net import TorchNet, as_tensors

    analysis = case.analysis()
    net = TorchNet(analysis, case.weights(analysis)).eval()
    last = {value.blob: value for value in analysis.net.values()}
    for suffix in ("", "2"):
        wanted, inputs = case.blobs(suffix), case.inputs(suffix)
        if wanted is None or inputs is None:
            continue
        with torch.no_grad():
            results = net.run(as_tensors(inputs))
        got = {name: results[value].detach().numpy() for name, value in last.items() if value in results}
        assert set(case.outputs()) <= set(got)
        case.compare(got, wanted, f"PyTorch{' with one image more' if suffix else ''}")


def check_onnx(case: BehaviourCase, folder: Path) -> None:
    """All blobs of the plain model and the outputs of the folded model match; also with one image more if possible."""
    caffe_model = case.caffe_model()
    inputs, wanted = case.inputs(), case.blobs()
    assert inputs is not None and wanted is not None
    plain = run(
        lower_to_onnx(caffe_model.analysis, caffe_model.weights, fold_bn=False),
        inputs,
        folder / "plain.onnx",
        every=True,
    )
    case.compare(plain, wanted, "ONNX")
    folded = lower_to_onnx(caffe_model.analysis, caffe_model.weights)
    outputs = run(folded, inputs, folder / "folded.onnx")
    assert set(outputs) >= set(case.outputs()) - set(inputs)
    case.compare(outputs, wanted, "ONNX, folded")
    more, wanted = case.inputs("2"), case.blobs("2")
    if more and wanted and all(fits(more[name].shape, dims) for name, dims in folded.inputs.items()):
        case.compare(run(folded, more, folder / "more.onnx"), wanted, "ONNX with one image more")


def check_folder(case: BehaviourCase, folder: Path) -> None:
    """The outputs of the net written as Python match, also with one image more."""
    from converters.pytorch_export.output_files import load_folder, run_module, write_folder
    from prototxt_gen.runtime.torch_net import TorchNet

    caffe_model = case.caffe_model()
    write_folder(caffe_model, TorchNet(caffe_model.analysis, caffe_model.weights), folder / "torch")
    written = load_folder(folder / "torch")
    for suffix in ("", "2"):
        inputs, wanted = case.inputs(suffix), case.blobs(suffix)
        if inputs is not None and wanted is not None:
            case.compare(run_module(caffe_model, written, inputs), wanted, f"model.py{suffix}")


def fits(shape: Sequence[int], dims: Sequence[int | str]) -> bool:
    """Whether an input of the model accepts arrays of this shape."""
    return all(isinstance(dim, str) or dim == size for size, dim in zip(shape, dims, strict=True))


def run(net: OnnxNet, inputs: Blobs, path: Path, every: bool = False) -> Blobs:
    """Save, load and run the model; return blobs by Caffe's names, without the inputs."""
    onnx_writer.save_onnx(net, path)
    fed = {name: inputs[name] for name in net.inputs}
    results = run_onnx_file(path, fed, list(net.names.values()) if every else ())
    last = {value.blob: name for value, name in net.names.items()}
    if not every:
        return {blob: results[name] for blob, name in last.items() if name in net.outputs}
    return {blob: results[name] for blob, name in last.items() if name in results and name not in net.inputs}
