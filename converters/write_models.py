"""The conversions as functions: read, lower, write, verify what was written, and only then put it in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.common.net_with_weights import Subject
from converters.common.staged_output import staged
from converters.verification.comparison_inputs import seeded
from converters.verification.verification_report import NotVerifiedError
from converters.verification.verify import Report, verify
from prototxt_gen.common.errors import PrototxtGenError

if TYPE_CHECKING:
    import numpy as np

    from converters.onnx_export.net_to_onnx import OnnxNet

    Blobs = Mapping[str, np.ndarray[Any, Any]]

REFERENCES = ("pycaffe", "torch")
"""What a conversion is verified against: real Caffe if it is there, and PyTorch."""


@dataclass(frozen=True)
class Conversion:
    """What was written, and what is to be said of it; `report` is None where it was not verified."""

    files: tuple[Path, ...]
    report: Report | None
    remarks: tuple[str, ...]


def lower_onnx(subject: Subject, **options: Any) -> OnnxNet:
    """Lower to ONNX, preprocessing with it; for the options see `onnx_net.lower`."""
    from converters.onnx_export.net_to_onnx import lower

    return lower(subject.analysis, subject.weights, metadata=subject.preprocessing.metadata(), **options)


def write_onnx(
    subject: Subject, out: Path, *, force: bool = False, verified: bool = True, **options: Any
) -> Conversion:
    """Write `out`, and `out`.data beside it above 2 GiB.

    Raises NotVerifiedError, and writes nothing, where the written model does not compute what the net does.
    """
    from converters.onnx_export.onnx_writer import save

    net = lower_onnx(subject, **options)
    with staged(out, force) as path:
        files = save(net, path)
        report = check(subject, "onnx", lambda inputs: _run_model(subject, path, inputs)) if verified else None
    return Conversion(tuple(out.parent / f.name for f in files), report, (*subject.remarks, *net.remarks))


def _run_model(subject: Subject, path: Path, inputs: Blobs) -> dict[str, np.ndarray[Any, Any]]:
    from converters.verification.runtimes import run_onnx_of

    return run_onnx_of(subject, path, inputs)


FORMATS = ("folder", "pt2")


def write_torch(
    subject: Subject, out: Path, form: str = "folder", *, force: bool = False, verified: bool = True
) -> Conversion:
    """Write for PyTorch: `form` "folder" makes a folder of model.py and model.safetensors, "pt2" a file.

    Raises NotVerifiedError, and writes nothing, where what was written does not compute what the net does.
    """
    from converters.pytorch_export import output_files as torch_file
    from prototxt_gen.runtime.torch_net import TorchNet

    if form not in FORMATS:
        raise PrototxtGenError(f"format {form!r}: there are {', '.join(FORMATS)}")
    net = TorchNet(subject.analysis, subject.weights)
    write = torch_file.write_folder if form == "folder" else torch_file.write_pt2
    load = torch_file.load_folder if form == "folder" else torch_file.load_pt2
    with staged(out, force, is_folder=form == "folder") as path:
        remarks = write(subject, net, path)
        files = sorted(path.rglob("*")) if form == "folder" else [path]
        report = None
        if verified:
            report = check(subject, form, lambda inputs: torch_file.run_module(subject, load(path), inputs))
        named = tuple(out.parent / file.relative_to(path.parent) for file in files if "__pycache__" not in file.parts)
    return Conversion(named, report, (*subject.remarks, *remarks))


def check(subject: Subject, runtime: str, run: Callable[[Blobs], Any]) -> Report:
    """Compare what was written, run by `run`, with the references; NotVerifiedError where it differs."""
    report = verify(subject, seeded(subject), REFERENCES, {runtime: lambda _, inputs: run(inputs)})
    if not report.verified:
        raise NotVerifiedError(report)
    return report
