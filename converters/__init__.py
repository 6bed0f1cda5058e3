"""Conversion of Caffe nets to ONNX and PyTorch, and verification against real Caffe.

    from converters import to_onnx, to_torch, verify
    to_onnx("deploy.prototxt", "net.caffemodel", "net.onnx")
    module = to_torch("deploy.prototxt", "net.caffemodel")

Every written file is verified first, against real Caffe if it is installed. torch, onnx and onnxruntime are imported
only when they are needed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from converters.common.reading import read_net_with_weights

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import nn

    from converters.common.net_with_weights import NetLike, WeightsLike
    from converters.common.preprocessing import Preprocessing
    from converters.verification.verify import VerificationReport

__all__ = ["read_net_with_weights", "read_subject", "to_onnx", "to_torch", "verify"]


read_subject = read_net_with_weights
"""The former name of `read_net_with_weights`."""


@overload
def to_onnx(
    net: NetLike,
    weights: WeightsLike,
    out: None = None,
    *,
    opset: int | None = ...,
    fold: bool = ...,
    dynamic_size: bool = ...,
    verify: bool = ...,
    force: bool = ...,
    phase: str = ...,
    stages: Sequence[str] = ...,
    level: int = ...,
    shapes: Mapping[str, tuple[int, ...]] | None = ...,
    input_size: tuple[int, ...] = ...,
    dialect: str | None = ...,
    bn_statistic: str | None = ...,
    ignore_fields: Collection[str] = ...,
    crop_rule: str | None = ...,
    anchor_rule: str | None = ...,
    preprocessing: Preprocessing | None = ...,
) -> onnx.ModelProto: ...
@overload
def to_onnx(
    net: NetLike,
    weights: WeightsLike,
    out: str | PathLike[str],
    *,
    opset: int | None = ...,
    fold: bool = ...,
    dynamic_size: bool = ...,
    verify: bool = ...,
    force: bool = ...,
    phase: str = ...,
    stages: Sequence[str] = ...,
    level: int = ...,
    shapes: Mapping[str, tuple[int, ...]] | None = ...,
    input_size: tuple[int, ...] = ...,
    dialect: str | None = ...,
    bn_statistic: str | None = ...,
    ignore_fields: Collection[str] = ...,
    crop_rule: str | None = ...,
    anchor_rule: str | None = ...,
    preprocessing: Preprocessing | None = ...,
) -> list[Path]: ...
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
    phase: str = "TEST",
    stages: Sequence[str] = (),
    level: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    input_size: tuple[int, ...] = (),
    dialect: str | None = None,
    bn_statistic: str | None = None,
    ignore_fields: Collection[str] = (),
    crop_rule: str | None = None,
    anchor_rule: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> onnx.ModelProto | list[Path]:
    """Convert a Caffe net and its weights to ONNX.

    Inputs, outputs and inner values have the names of Caffe's blobs. The batch size is dynamic if the net allows it.
    The prototxt and the preprocessing are stored as metadata; the model itself does not preprocess.

    Args:
        net: Path of a prototxt, or a Net.
        weights: Path of a .caffemodel or .h5, or Weights. None for a net without learned blobs.
        out: File to write. Above 2 GiB the weights go to a second file, `out`.data. Default: nothing is written.
        opset: ONNX opset, 18 to 23. Default: 20.
        fold: Fold batch normalisation into the layer above where possible; some blobs then no longer exist.
        dynamic_size: Make height and width of the input dynamic too.
        verify: Compare the written file with real Caffe, if installed, and PyTorch before it is moved to `out`.
        force: Overwrite existing files.
        phase to preprocessing: As in `read_net_with_weights`.

    Returns:
        The ONNX model if `out` is None, else the written files.

    Raises:
        UnsupportedError: Some layers have no exact ONNX form (all are listed), or the opset is not supported.
        NotVerifiedError: The written model does not compute the same as the net. Nothing is written then.
        PrototxtGenError: A file exists and `force` is False, or any error of `read_net_with_weights`.
    """
    from converters.write_models import convert_to_onnx, write_onnx

    model = read_net_with_weights(
        net,
        weights,
        phase=phase,
        stages=stages,
        level=level,
        shapes=shapes,
        input_size=input_size,
        dialect=dialect,
        bn_statistic=bn_statistic,
        ignore_fields=ignore_fields,
        crop_rule=crop_rule,
        anchor_rule=anchor_rule,
        preprocessing=preprocessing,
    )
    options: dict[str, Any] = {"fold_bn": fold, "dynamic_size": dynamic_size} | ({"opset": opset} if opset else {})
    if out is None:
        return convert_to_onnx(model, **options).model()
    return list(write_onnx(model, Path(out), force=force, verify_output=verify, **options).files)


def to_torch(
    net: NetLike,
    weights: WeightsLike,
    out: str | PathLike[str] | None = None,
    *,
    format: str = "folder",
    verify: bool = True,
    force: bool = False,
    phase: str = "TEST",
    stages: Sequence[str] = (),
    level: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    input_size: tuple[int, ...] = (),
    dialect: str | None = None,
    bn_statistic: str | None = None,
    ignore_fields: Collection[str] = (),
    crop_rule: str | None = None,
    anchor_rule: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> nn.Module:
    """Convert a Caffe net and its weights to PyTorch.

    Args:
        net: Path of a prototxt, or a Net.
        weights: Path of a .caffemodel or .h5, or Weights. None for a net without learned blobs.
        out: Folder or file to write. Default: nothing is written.
        format: "folder" for a folder with model.py, which does not need prototxt-gen, and model.safetensors; "pt2" for
            a file of torch.export.
        verify: Compare the written model with real Caffe, if installed, and PyTorch before it is moved to `out`.
        force: Overwrite existing files.
        phase to preprocessing: As in `read_net_with_weights`.

    Returns:
        A module in eval mode. It takes the net's inputs, N×C×H×W float32, and returns the net's output; a tuple if
        there are several.

    Raises:
        UnsupportedError: Some layers cannot be written as PyTorch source (all are listed), or torch.export refuses.
        NotVerifiedError: The written model does not compute the same as the net. Nothing is written then.
        PrototxtGenError: A file exists and `force` is False, or any error of `read_net_with_weights`.
    """
    from prototxt_gen.runtime.torch_net import TorchNet

    model = read_net_with_weights(
        net,
        weights,
        phase=phase,
        stages=stages,
        level=level,
        shapes=shapes,
        input_size=input_size,
        dialect=dialect,
        bn_statistic=bn_statistic,
        ignore_fields=ignore_fields,
        crop_rule=crop_rule,
        anchor_rule=anchor_rule,
        preprocessing=preprocessing,
    )
    if out is not None:
        from converters.write_models import write_torch

        write_torch(model, Path(out), format, force=force, verify_output=verify)
    return TorchNet(model.analysis, model.weights)


def verify(
    net: NetLike,
    weights: WeightsLike,
    *,
    against: Sequence[str] = ("pycaffe", "torch", "onnx", "opencv"),
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
    seed: int = 0,
    phase: str = "TEST",
    stages: Sequence[str] = (),
    level: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    input_size: tuple[int, ...] = (),
    dialect: str | None = None,
    bn_statistic: str | None = None,
    ignore_fields: Collection[str] = (),
    crop_rule: str | None = None,
    anchor_rule: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> VerificationReport:
    """Run a net in several runtimes on the same inputs, and compare every blob.

    Args:
        net: Path of a prototxt, or a Net.
        weights: Path of a .caffemodel or .h5, or Weights. None for a net without learned blobs.
        against: Runtimes to compare. The first one that can run is the reference for the others.
        inputs: float32 arrays by blob name, in the shapes of the net's inputs. Default: random inputs.
        seed: Seed of the random inputs.
        phase to preprocessing: As in `read_net_with_weights`.

    Returns:
        A report; its `verified` is True if at least two runtimes ran and all agree. A runtime that is not installed is
        no error.

    Raises:
        PrototxtGenError: A runtime is unknown, or any error of `read_net_with_weights`.
    """
    from converters.verification.comparison_inputs import seeded_inputs
    from converters.verification.verify import verify as compare_runtimes

    model = read_net_with_weights(
        net,
        weights,
        phase=phase,
        stages=stages,
        level=level,
        shapes=shapes,
        input_size=input_size,
        dialect=dialect,
        bn_statistic=bn_statistic,
        ignore_fields=ignore_fields,
        crop_rule=crop_rule,
        anchor_rule=anchor_rule,
        preprocessing=preprocessing,
    )
    return compare_runtimes(model, inputs if inputs is not None else seeded_inputs(model, seed), against)
