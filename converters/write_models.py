"""Caffe to ONNX and Caffe to PyTorch, as files: convert, write to a temporary folder, verify, then move to `out`.

If the written model does not compute the same as the net, nothing is moved to `out`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.common.net_with_weights import NetWithWeights
from converters.common.staged_output import staged_output
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.run_numpy import run_numpy, uncovered_layers
from converters.verification.runtimes import Runtime
from converters.verification.verification_report import NotVerifiedError
from converters.verification.verify import VerificationReport, verify
from prototxt_gen.common.errors import PrototxtGenError

if TYPE_CHECKING:
    import numpy as np

    from converters.onnx_export.net_to_onnx import OnnxNet

    Blobs = Mapping[str, np.ndarray[Any, Any]]

REFERENCE_RUNTIMES = ("pycaffe", "torch")
"""Runtimes that a written model is compared with: real Caffe if it is installed, and PyTorch."""
PYTORCH_FORMATS = ("folder", "pt2")


@dataclass(frozen=True)
class ConversionResult:
    """The written files, the verification report (None if it was skipped), and remarks for the user."""

    files: tuple[Path, ...]
    report: VerificationReport | None
    remarks: tuple[str, ...]
    unverified: str = ""
    """Why the verification could not run at all, so that the files were written without it; empty if it ran."""


def convert_to_onnx(model: NetWithWeights, **options: Any) -> OnnxNet:
    """Convert to ONNX in memory, with the preprocessing as metadata. For `options` see `net_to_onnx.lower_to_onnx`."""
    from converters.onnx_export.net_to_onnx import lower_to_onnx

    return lower_to_onnx(model.analysis, model.weights, metadata=model.preprocessing.metadata(), **options)


def write_onnx(
    model: NetWithWeights, out: Path, *, force: bool = False, verify_output: bool = True, **options: Any
) -> ConversionResult:
    """Convert to ONNX and write the file `out`; above 2 GiB the weights go to `out`.data beside it.

    `force`: overwrite. For `options` see `net_to_onnx.lower_to_onnx`. Raises NotVerifiedError, and writes nothing, if
    the written model does not compute the same as the net. Without Caffe and PyTorch it is compared with an evaluation
    in NumPy, which has the common layer types; for a net with others the file is written, and `unverified` says so.
    """
    from converters.onnx_export.onnx_writer import save_onnx

    net = convert_to_onnx(model, **options)
    with staged_output(out, force) as path:
        files = save_onnx(net, path)
        report, unverified = None, _why_unverifiable(model) if verify_output else ""
        if verify_output and not unverified:
            report = verify_written_model(model, "onnx", lambda inputs: _run_onnx_export(model, path, inputs))
    written = tuple(out.parent / file.name for file in files)
    return ConversionResult(written, report, (*model.remarks, *net.remarks), unverified)


def _has_reference_runtime() -> bool:
    return any(find_spec(package) is not None for package in ("torch", "caffe"))


def _why_unverifiable(model: NetWithWeights) -> str:
    """Return why a conversion cannot be compared with anything here; empty if it can."""
    uncovered = [] if _has_reference_runtime() else uncovered_layers(model)
    if not uncovered:
        return ""
    counts = ", ".join(f"{type_} ×{n}" for type_, n in Counter(layer.type for layer in uncovered).items())
    return (
        f"NOT VERIFIED: nothing installed here computes {counts}, so that no number of the output was compared; "
        "pip install 'prototxt-gen[torch]', and convert again"
    )


def _run_onnx_export(model: NetWithWeights, path: Path, inputs: Blobs) -> dict[str, np.ndarray[Any, Any]]:
    from converters.verification.runtimes import run_onnx_export

    return run_onnx_export(model, path, inputs)


def write_torch(
    model: NetWithWeights, out: Path, format: str = "folder", *, force: bool = False, verify_output: bool = True
) -> ConversionResult:
    """Convert to PyTorch and write `out`.

    `format`: "folder" for a folder with model.py and model.safetensors, "pt2" for a file of torch.export. `force`:
    overwrite. Raises NotVerifiedError, and writes nothing, if the written model does not compute the same as the net.
    """
    from converters.pytorch_export import output_files
    from prototxt_gen.runtime.torch_net import TorchNet

    if format not in PYTORCH_FORMATS:
        raise PrototxtGenError(f"format {format!r}: there are {', '.join(PYTORCH_FORMATS)}")
    is_folder = format == "folder"
    net = TorchNet(model.analysis, model.weights)
    write = output_files.write_folder if is_folder else output_files.write_pt2
    load = output_files.load_folder if is_folder else output_files.load_pt2
    with staged_output(out, force, is_folder) as path:
        remarks = write(model, net, path)
        written = sorted(path.rglob("*")) if is_folder else [path]
        report = None
        if verify_output:
            report = verify_written_model(
                model, format, lambda inputs: output_files.run_module(model, load(path), inputs)
            )
        files = tuple(out.parent / f.relative_to(path.parent) for f in written if "__pycache__" not in f.parts)
    return ConversionResult(files, report, (*model.remarks, *remarks))


def verify_written_model(model: NetWithWeights, name: str, run: Callable[[Blobs], Any]) -> VerificationReport:
    """Compare a written model with the net in REFERENCE_RUNTIMES.

    `run` runs the written model: it maps inputs to outputs, both by blob name. `name` is its name in the report.
    Raises NotVerifiedError if they differ.
    """
    others: dict[str, Runtime] = {} if _has_reference_runtime() else {"numpy": run_numpy}
    others[name] = lambda _, inputs: run(inputs)
    report = verify(model, seeded_inputs(model), REFERENCE_RUNTIMES, others)
    if not report.verified:
        raise NotVerifiedError(report)
    return report
