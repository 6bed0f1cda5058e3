"""Conversion of a net to another fork of Caffe, with equivalents for layer types and fields that the fork lacks.

The fields of a fork are in its `Dialect`, its layer types are listed here. Source: REGISTER_LAYER_CLASS and
REGISTER_LAYER_CREATOR in src/caffe of each fork.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from prototxt_gen.analysis import Row
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Net, Value
from prototxt_gen.layers.activation.relu6 import ReLU6Parameter
from prototxt_gen.layers.data.input import InputParameter
from prototxt_gen.layers.loss.smooth_l1_loss import SmoothL1LossParameter
from prototxt_gen.layers.normalization.normalize import NormalizeParameter
from prototxt_gen.layers.vision._convolution_window import DILATION_FIELDS, ConvolutionParameter
from prototxt_gen.layers.vision.interp import InterpParameter
from prototxt_gen.layers.vision.pooling import PoolingParameter
from prototxt_gen.net.dialect_fields import fields_missing_in_dialect
from prototxt_gen.passes.bn_merge import merge_batch_norms
from prototxt_gen.passes.bn_split import split_batch_norms
from prototxt_gen.passes.bvlc_equivalents import EQUIVALENTS
from prototxt_gen.schema.dialect import DIALECTS, Dialect
from prototxt_gen.schema.message import Message
from prototxt_gen.weights import Weights

_TYPES = {
    "bvlc": (
        "AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop Data "
        "Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output "
        "HingeLoss Im2col ImageData InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData "
        "MultinomialLogisticLoss PReLU Parameter Pooling Power Python RNN ReLU Reduction Reshape SPP Scale Sigmoid "
        "SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss Split Swish TanH Threshold Tile WindowData",
        "",
    ),
    "ssd": (
        "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox SmoothL1Loss "
        "VideoData",
        "Clip Swish",
    ),
    # The published sources of buptwangfei lack the line that registers BN, but its nets use BN.
    "buptwangfei": ("BN Interp", "Clip Swish"),
    "happynear": (
        "Arccos Axpy BN BatchContrastiveLoss CenterLoss ChannelScale ConfidencePenaltyLoss CorrelationLoss Cosine "
        "FCNAccuracy Flip FocalLoss GeneralContrastiveLoss GeneralTripletLoss GlobalLSEMargin Gram Hotspot "
        "InnerDistance Insanity LabelSpecificAdd LargeMarginInnerProduct Local MarginInnerProduct MovingNormalize "
        "MultiLabelImageData NCALoss Noise Normalize PSROIPooling Pairwise Permute PredictBox Proposal ROIPooling "
        "Resize Slope SmoothL1Loss SoftContrastiveLoss SoftTruncation SubRegion Transformer TripletLoss Truncation",
        "Clip Swish",
    ),
    "yjxiong": (
        "BN BatchReduction Gather Normalize ROIPooling Scatter SegData SmoothL1Loss SyncBN VideoData",
        "BatchNorm BatchReindex Clip Crop ELU Embed Input LSTM LSTMUnit Parameter RNN Swish Tile",
    ),
    "pspnet": (
        "AdaptiveBiasChannel BN BiasChannel DenseCRF DomainTransform DomainTransformForwardOnly ImageSegData Interp "
        "MatRead MatWrite SegAccuracy SpatialProduct UniqueLabel",
        "Clip Crop Input LSTM LSTMUnit Parameter RNN Swish",
    ),
    "brocolli": (
        "BatchNormKyle BilinearInterpolate HardSigmoid HardSwish MaxUnPool PSROIPooling Pad PixelShuffle "
        "Proposal ReLU6 Resize Unsqueeze Upsample",
        "",
    ),
    "prototxt-gen": ("BN Clip Interp Swish", "VideoData"),
}
"""For each fork: the layer types that it adds to those of the dialect it is based on, and those that it lacks."""


@cache
def layer_types_of(dialect: Dialect) -> frozenset[str]:
    """Return the names of the layer types that a fork has."""
    added, lacking = (frozenset(names.split()) for names in _TYPES[dialect.name])
    base = frozenset() if dialect.name == dialect.base else layer_types_of(DIALECTS[dialect.base])
    return (base | added) - lacking


def to_dialect(net: Net, target: Dialect) -> Net:
    """Return the net, with the layers of all phases, in a form that the fork `target` can read.

    BN and BatchNorm, inputs, depthwise convolutions, ReLU6, Axpy, the rounding of pooling, and fields set to their
    defaults are replaced by equivalents that compute the same. Raises UnsupportedError, which lists everything that has
    no equivalent.
    """
    types = layer_types_of(target)
    if "BN" not in types:
        net, _ = split_batch_norms(net, Weights({}))
    elif "BatchNorm" not in types:
        net, _ = merge_batch_norms(net, Weights({}))
    if "Input" not in types:
        net = _with_net_inputs(net)
    layers = [with_supported_fields(one, target) for layer in net.layers for one in _supported_layers(layer, types)]
    converted = net.relinked(layers)
    unsupported = [*_unknown_types(converted, types), *_different_layers(converted, target)]
    unsupported += _unknown_fields(converted, target)
    if unsupported:
        listed = "".join(f"\n  {text}" for text in _summarised(unsupported))
        raise UnsupportedError(f"{net.source or net.name} cannot be converted to the dialect {target.name}:{listed}")
    return converted


def _with_net_inputs(net: Net) -> Net:
    """Return the net with its Input layers as net inputs, if they have shapes and no include or exclude rules."""
    inputs, layers = list(net.inputs), []
    for layer in net.layers:
        shapes = layer.get(InputParameter).shape
        if layer.type != "Input" or not shapes or layer.params.include or layer.params.exclude:
            layers.append(layer)
            continue
        each = shapes if len(shapes) > 1 else shapes * len(layer.tops)
        inputs += [Value(top.blob, 0, shape.dim) for top, shape in zip(layer.tops, each, strict=True)]
    return replace(net, inputs=tuple(inputs), layers=()).relinked(layers)


def _supported_layers(layer: Layer, types: frozenset[str]) -> list[Layer]:
    """Return equivalent layers of types that the fork has, or the layer itself if there are none."""
    if layer.type in types:
        return [layer]
    if layer.type == "ReLU6" and "Clip" in types and not layer.get(ReLU6Parameter).negative_slope:
        clip = {"min": 0.0, "max": layer.get(ReLU6Parameter).threshold}
        return [replace(layer, type="Clip", params=layer.params.replace(relu6_param=None, clip_param=clip))]
    equivalent = EQUIVALENTS.get(layer.type)
    row = Row(layer, (None,) * len(layer.bottoms), (None,) * len(layer.tops))
    replaced = [layer] if equivalent is None else equivalent(row)
    return replaced if all(one.type in types for one in replaced) else [layer]


def with_supported_fields(layer: Layer, target: Dialect) -> Layer:
    """Return the layer without fields that the fork lacks if they have their default, and with its name of rounding."""
    params = layer.params
    for name, value in list(params.set_fields()):
        if isinstance(value, Message):
            lacking = [field for field in lacking_fields(value, name, target) if _is_default(value, field)]
            value = value.replace(**dict.fromkeys(lacking))
            value = _with_supported_rounding(value, target) if isinstance(value, PoolingParameter) else value
            value = _with_supported_dilation(value, target) if isinstance(value, ConvolutionParameter) else value
            params = params.replace(**{name: value})
    return replace(layer, params=params)


def _with_supported_dilation(convolution: ConvolutionParameter, target: Dialect) -> ConvolutionParameter:
    """Return the parameters with `dilation` in place of another name of it that the fork lacks."""
    lacking = {*lacking_fields(convolution, "convolution_param", target)} & {*DILATION_FIELDS}
    if not lacking or convolution.dilation or "dilation" not in target.table["ConvolutionParameter"]:
        return convolution
    return convolution.replace(**dict.fromkeys(DILATION_FIELDS), dilation=convolution.dilations)


def lacking_fields(params: Message, name: str, target: Dialect) -> list[str]:
    """Return the names of the fields that are set in the parameter message `name` and that the fork does not have."""
    entry = target.table["LayerParameter"].get(name)
    has = {known.name for known, _ in target.numbered_fields(type(params), entry.message)} if entry else set()
    return [field for field, _ in params.set_fields() if field not in has]


def _is_default(params: Message, name: str) -> bool:
    """Return whether the layer computes the same without the field: it has its default, or is `engine`."""
    known = params.fields[name]
    return name == "engine" or (not known.repeated and known.message is None and getattr(params, name) == known.default)


def _with_supported_rounding(pooling: PoolingParameter, target: Dialect) -> PoolingParameter:
    """Return the parameters with `round_mode: FLOOR` or `ceil_mode: false`, whichever the fork has."""
    lacking = lacking_fields(pooling, "pooling_param", target)
    has = target.table["PoolingParameter"]
    if "round_mode" in lacking and "ceil_mode" in has:
        return pooling.replace(round_mode=None, ceil_mode=False)
    if "ceil_mode" in lacking and "round_mode" in has:
        return pooling.replace(ceil_mode=None, round_mode=None if pooling.has("round_mode") else "FLOOR")
    return pooling


Unsupported = tuple[str, str, str]
"""Something that the fork does not support: the reason, the type of the layer and its name."""


def _summarised(unsupported: list[Unsupported]) -> list[str]:
    """Return a line for each reason and layer type, with the first layer and the number of the others."""
    first: dict[tuple[str, str], str] = {}
    for reason, type_, name in unsupported:
        first.setdefault((reason, type_), name)
    counts = Counter((reason, type_) for reason, type_, _ in unsupported)
    lines = []
    for (reason, type_), name in first.items():
        others = f" and {counts[reason, type_] - 1} more" if counts[reason, type_] > 1 else ""
        lines.append(f"layer {name!r} ({type_}){others}: {reason}" if type_ else f"the net: {reason}")
    return lines


def _unknown_types(net: Net, types: frozenset[str]) -> Iterator[Unsupported]:
    for layer in net.layers:
        if layer.type not in types:
            yield f"the fork has no such type{_NO_EQUIVALENT.get(layer.type, '')}", layer.type, layer.name


_NO_EQUIVALENT = {
    "Interp": ", and a Deconvolution with a bilinear filler is no equivalent: its grid is not aligned at the corners",
    "BN": ", and this BN has no equivalent BatchNorm and Scale",
}


def _unknown_fields(net: Net, target: Dialect) -> Iterator[Unsupported]:
    by_name = {layer.name: layer for layer in net.layers}
    for name, path in fields_missing_in_dialect(target, net):
        yield f"the fork has no field {path}", by_name[name].type if name else "", name
    for layer in net.layers:
        for extra in layer.params.extras:
            if extra.name not in target.table["LayerParameter"]:
                yield f"the fork has no field {extra.name}", layer.type, layer.name
        for name, value in layer.params.set_fields():
            if isinstance(value, Message):
                yield from (
                    (f"the fork has no field {path}", layer.type, layer.name)
                    for path in _missing_extras(value, name, target)
                )


def _missing_extras(params: Message, name: str, target: Dialect) -> Iterator[str]:
    """Yield the paths of extras (fields unknown to prototxt-gen) that the fork does not have either."""
    entry = target.table["LayerParameter"].get(name)
    known = target.table.get(entry.message, {}) if entry else {}
    for path, extra in params.walk_extras(f"{name}."):
        if path.count(".") > 1 or extra.name not in known:
            yield path


def _different_layers(net: Net, target: Dialect) -> Iterator[Unsupported]:
    """Yield layers whose type has the same name in the fork, but computes something else there."""
    for layer in net.layers:
        interp = layer.get(InterpParameter)
        if layer.type == "Interp" and target.name == "pspnet":
            if len(layer.bottoms) > 1:
                yield "in this fork it has only one bottom; set height and width instead", layer.type, layer.name
            elif interp.has("zoom_factor") and interp.has("shrink_factor"):
                yield "this fork applies zoom_factor and shrink_factor together", layer.type, layer.name
        for type_, param, forks in _AMBIGUOUS_TYPES:
            if layer.type == type_ and target.name in forks and layer.params.has(param):
                yield f"the fork's type of this name is another layer, without {param}", layer.type, layer.name


_AMBIGUOUS_TYPES = (
    ("Normalize", NormalizeParameter.field, ("happynear", "yjxiong")),
    ("SmoothL1Loss", SmoothL1LossParameter.field, ("happynear",)),
)
