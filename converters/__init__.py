"""From Caffe nets to other formats: ONNX, PyTorch, and other forms of Caffe.

    from converters import to_onnx, to_torch, verify
    to_onnx("deploy.prototxt", "net.caffemodel", "net.onnx")
    module = to_torch("deploy.prototxt", "net.caffemodel")

What is written is verified first, against real Caffe if it is installed. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from converters.common.net_with_weights import NetLike, Subject, WeightsLike
    from converters.common.preprocessing import Preprocessing
    from converters.verification.verify import Report

__all__ = ["read_subject", "to_onnx", "to_torch", "verify"]


def read_subject(
    net: NetLike,
    weights: WeightsLike,
    *,
    phase: str = "TEST",
    stages: Sequence[str] = (),
    level: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    input_size: tuple[int, ...] = (),
    dialect: str | None = None,
    bn_statistic: str | None = None,
    ignore_fields: Collection[str] = (),
    preprocessing: Preprocessing | None = None,
) -> Subject:
    """Read a net (a prototxt's path, or a Net) and its weights (a .caffemodel's or .h5's path, or Weights) together.

    A net that learns nothing needs no weights: they are None.

    `shapes` are those of inputs and data layers by blob, N×C×H×W; `dialect` and `bn_statistic` ("inverse_std" or
    "variance") tell what the file does not; `ignore_fields` names fields of forks that change nothing.
    Raises PrototxtGenError: PrototxtError, NetError, UnsupportedError or WeightsError, all faults in one text.
    """
    from dataclasses import replace

    from converters.common.net_with_weights import Reading, open_subject

    how = Reading(
        phase, tuple(stages), level, dict(shapes or {}), tuple(input_size), dialect, bn_statistic, tuple(ignore_fields)
    )
    made = open_subject(net, weights, how)
    return made if preprocessing is None else replace(made, preprocessing=preprocessing)


@overload
def to_onnx(net: NetLike, weights: WeightsLike, out: None = None, **options: Any) -> onnx.ModelProto: ...
@overload
def to_onnx(net: NetLike, weights: WeightsLike, out: str | PathLike[str], **options: Any) -> list[Path]: ...
def to_onnx(
    net: NetLike,
    weights: WeightsLike,
    out: str | PathLike[str] | None = None,
    *,
    opset: int | None = None,
    fold: bool = True,
    dynamic_size: bool = False,
    verify: bool = True,
    force: bool = False,
    **reading: Any,
) -> onnx.ModelProto | list[Path]:
    """Convert to ONNX: return the model, or write it to `out` and return the files written.

    `reading` is what `read_subject` takes. What is written is verified unless told otherwise: NotVerifiedError, and
    nothing written, where it does not compute what the net does. UnsupportedError lists every layer that has no exact
    ONNX form.
    """
    from converters.write_models import lower_onnx, write_onnx

    subject = read_subject(net, weights, **reading)
    options: dict[str, Any] = {"fold_bn": fold, "dynamic_size": dynamic_size} | ({"opset": opset} if opset else {})
    if out is None:
        return lower_onnx(subject, **options).model()
    return list(write_onnx(subject, Path(out), force=force, verified=verify, **options).files)


def to_torch(
    net: NetLike,
    weights: WeightsLike,
    out: str | PathLike[str] | None = None,
    *,
    format: str = "folder",
    verify: bool = True,
    force: bool = False,
    **reading: Any,
) -> nn.Module:
    """Convert to PyTorch: return a module in eval mode, and with `out` write it too.

    `format`: "folder", a model.py that needs nothing of ours and model.safetensors, or "pt2", by torch.export.
    `reading` is what `read_subject` takes; errors as in `to_onnx`.
    """
    from prototxt_gen.runtime.torch_net import TorchNet

    subject = read_subject(net, weights, **reading)
    if out is not None:
        from converters.write_models import write_torch

        write_torch(subject, Path(out), format, force=force, verified=verify)
    return TorchNet(subject.analysis, subject.weights)


def verify(
    net: NetLike,
    weights: WeightsLike,
    *,
    against: Sequence[str] = ("pycaffe", "torch", "onnx", "opencv"),
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
    **reading: Any,
) -> Report:
    """Run a net in every runtime named that is there, on the same inputs, and compare blob by blob.

    `inputs`: float32 arrays by blob name; seeded ones otherwise. `reading` is what `read_subject` takes.
    """
    from converters.verification.comparison_inputs import seeded
    from converters.verification.verify import verify as run

    subject = read_subject(net, weights, **reading)
    return run(subject, inputs if inputs is not None else seeded(subject, seed), against)
