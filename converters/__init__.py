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

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import nn
    from typing_extensions import Unpack

    from converters.common.net_with_weights import NetLike, NetWithWeights, WeightsLike
    from converters.common.preprocessing import Preprocessing
    from converters.common.reading_arguments import ReadingArguments
    from converters.verification.verify import VerificationReport

__all__ = ["read_net_with_weights", "read_subject", "to_onnx", "to_torch", "verify"]


def read_net_with_weights(
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
    crop_rule: str | None = None,
    anchor_rule: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> NetWithWeights:
    """Read a net and its weights for conversion.

    A train_val net becomes its deploy net: data layers become inputs, losses and metrics are removed.

    Args:
        net: Path of a prototxt, or a Net.
        weights: Path of a .caffemodel or .h5, or Weights. None for a net without learned blobs.
        phase: "TEST" or "TRAIN". Selects layers by their include and exclude rules, as do `stages` and `level`.
        stages: Stages of the net, in addition to those in its `state`.
        level: Level of the net.
        shapes: Shapes of inputs and data layers, N×C×H×W, by blob name. Default: those in the prototxt.
        input_size: Height and width in pixels for the image input. Pooling over the whole map stays global.
        dialect: Caffe fork that wrote the weights. Default: detected.
        bn_statistic: Content of the fourth blob of BN layers, "inverse_std" or "variance". Default: as in the fork.
        ignore_fields: Names of unknown fields that do not change the result.
        crop_rule: Where Crop layers without crop_param cut: "coordinates", where the coordinates of their bottoms
            agree, as in the Caffe of HED and the first FCNs; or "offset", at 0, as in BVLC's Caffe. Default: as the net
            tells; an error if it can mean both.
        anchor_rule: What the sides of the anchors of Proposal layers are multiplied by: "scale", as in Intel's Caffe,
            OpenVINO and OpenCV; or "scale-over-base", as in happynear's Caffe. Default: as the net tells, or an error.
        preprocessing: Preprocessing of the input images. Default: that of the net's data layer.

    Raises:
        PrototxtError: The prototxt cannot be parsed.
        NetError: The net is invalid; UnsupportedError if it has unknown layer types or fields. All problems are listed.
        WeightsError: The weights cannot be read or do not fit the net.
    """
    from dataclasses import replace

    from converters.common.net_with_weights import ReadOptions
    from converters.common.net_with_weights import read_net_with_weights as read
    from prototxt_gen.net.fork_rules import ForkRules

    options = ReadOptions(
        phase,
        tuple(stages),
        level,
        dict(shapes or {}),
        tuple(input_size),
        dialect,
        bn_statistic,
        tuple(ignore_fields),
        ForkRules(crop_rule, anchor_rule),
    )
    model = read(net, weights, options)
    return model if preprocessing is None else replace(model, preprocessing=preprocessing)


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
    **reading: Unpack[ReadingArguments],
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
    **reading: Unpack[ReadingArguments],
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
    **reading: Unpack[ReadingArguments],
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
        reading: Keyword arguments of `read_net_with_weights`: phase, shapes, dialect and so on.

    Returns:
        The ONNX model if `out` is None, else the written files.

    Raises:
        UnsupportedError: Some layers have no exact ONNX form (all are listed), or the opset is not supported.
        NotVerifiedError: The written model does not compute the same as the net. Nothing is written then.
        PrototxtGenError: A file exists and `force` is False, or any error of `read_net_with_weights`.
    """
    from converters.write_models import convert_to_onnx, write_onnx

    model = read_net_with_weights(net, weights, **reading)
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
    **reading: Unpack[ReadingArguments],
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
        reading: Keyword arguments of `read_net_with_weights`: phase, shapes, dialect and so on.

    Returns:
        A module in eval mode. It takes the net's inputs, N×C×H×W float32, and returns the net's output; a tuple if
        there are several.

    Raises:
        UnsupportedError: Some layers cannot be written as PyTorch source (all are listed), or torch.export refuses.
        NotVerifiedError: The written model does not compute the same as the net. Nothing is written then.
        PrototxtGenError: A file exists and `force` is False, or any error of `read_net_with_weights`.
    """
    from prototxt_gen.runtime.torch_net import TorchNet

    model = read_net_with_weights(net, weights, **reading)
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
    **reading: Unpack[ReadingArguments],
) -> VerificationReport:
    """Run a net in several runtimes on the same inputs, and compare every blob.

    Args:
        net: Path of a prototxt, or a Net.
        weights: Path of a .caffemodel or .h5, or Weights. None for a net without learned blobs.
        against: Runtimes to compare. The first one that can run is the reference for the others.
        inputs: float32 arrays by blob name, in the shapes of the net's inputs. Default: random inputs.
        seed: Seed of the random inputs.
        reading: Keyword arguments of `read_net_with_weights`: phase, shapes, dialect and so on.

    Returns:
        A report; its `verified` is True if at least two runtimes ran and all agree. A runtime that is not installed is
        no error.

    Raises:
        PrototxtGenError: A runtime is unknown, or any error of `read_net_with_weights`.
    """
    from converters.verification.comparison_inputs import seeded_inputs
    from converters.verification.verify import verify as compare_runtimes

    model = read_net_with_weights(net, weights, **reading)
    return compare_runtimes(model, inputs if inputs is not None else seeded_inputs(model, seed), against)
