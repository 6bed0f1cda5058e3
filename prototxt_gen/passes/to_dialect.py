"""A net for another fork of Caffe: what the fork lacks is said in words that it has, or all of it is refused at once.

Which fields a fork has is in its `Dialect`; which layer types, here. Source: the names that each fork registers its
layers by, REGISTER_LAYER_CLASS and REGISTER_LAYER_CREATOR in src/caffe.
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
from prototxt_gen.layers.vision.interp import InterpParameter
from prototxt_gen.layers.vision.pooling import PoolingParameter
from prototxt_gen.net.dialect_fields import unknown_fields
from prototxt_gen.passes.bn_merge import merge
from prototxt_gen.passes.bn_split import split
from prototxt_gen.passes.bvlc_equivalents import STOCK
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
    # The published sources of buptwangfei leave out the line that registers BN, which its nets are made of.
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
"""Each fork's layer types beside those of the dialect it is based on, and those of it that it lacks."""


@cache
def types_of(dialect: Dialect) -> frozenset[str]:
    """Return the layer types that a fork has."""
    more, less = (frozenset(names.split()) for names in _TYPES[dialect.name])
    based = frozenset() if dialect.name == dialect.base else types_of(DIALECTS[dialect.base])
    return (based | more) - less


def to_dialect(net: Net, target: Dialect) -> Net:
    """Return the net, of all phases, in the words of another fork.

    BN and BatchNorm, inputs, depthwise convolutions, ReLU6, Axpy, rounding of pooling and fields set to their defaults
    are said otherwise where the computation stays the same. UnsupportedError lists all that has no such form.
    """
    types = types_of(target)
    if "BN" not in types:
        net, _ = split(net, Weights({}))
    elif "BatchNorm" not in types:
        net, _ = merge(net, Weights({}))
    if "Input" not in types:
        net = _with_bare_inputs(net)
    layers = [_in_fields(made, target) for layer in net.layers for made in _in_types(layer, types)]
    made = net.relinked(layers)
    faults = _counted([*_unknown_types(made, types), *_other_meanings(made, target), *_unknown_fields(made, target)])
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise UnsupportedError(f"{net.source or net.name} has no form in the dialect {target.name}:{listed}")
    return made


def _with_bare_inputs(net: Net) -> Net:
    """Turn Input layers of known shapes that no rule chooses into inputs of the net."""
    inputs, layers = list(net.inputs), []
    for layer in net.layers:
        shapes = layer.get(InputParameter).shape
        if layer.type != "Input" or not shapes or layer.params.include or layer.params.exclude:
            layers.append(layer)
            continue
        each = shapes if len(shapes) > 1 else shapes * len(layer.tops)
        inputs += [Value(top.blob, 0, shape.dim) for top, shape in zip(layer.tops, each, strict=True)]
    return replace(net, inputs=tuple(inputs), layers=()).relinked(layers)


def _in_types(layer: Layer, types: frozenset[str]) -> list[Layer]:
    """Return layers of types that the fork has and that compute the same, where there are such."""
    if layer.type in types:
        return [layer]
    if layer.type == "ReLU6" and "Clip" in types and not layer.get(ReLU6Parameter).negative_slope:
        own = {"min": 0.0, "max": layer.get(ReLU6Parameter).threshold}
        return [replace(layer, type="Clip", params=layer.params.replace(relu6_param=None, clip_param=own))]
    stock = STOCK.get(layer.type)
    unknown = Row(layer, (None,) * len(layer.bottoms), (None,) * len(layer.tops))
    made = [layer] if stock is None else stock(unknown)
    return made if all(one.type in types for one in made) else [layer]


def _in_fields(layer: Layer, target: Dialect) -> Layer:
    """Leave out fields that the fork lacks and that say what holds without them, and name the rounding as it does."""
    params = layer.params
    for name, own in list(params.set_fields()):
        if isinstance(own, Message):
            lacking = [field for field in lacking_fields(own, name, target) if _is_default(own, field)]
            own = own.replace(**dict.fromkeys(lacking))
            params = params.replace(**{name: _rounded(own, target) if isinstance(own, PoolingParameter) else own})
    return replace(layer, params=params)


def lacking_fields(own: Message, name: str, target: Dialect) -> list[str]:
    """Return the fields set in a layer's parameters `name` that the fork does not have."""
    place = target.table["LayerParameter"].get(name)
    has = {known.name for known, _ in target.places(type(own), place.message)} if place else set()
    return [field for field, _ in own.set_fields() if field not in has]


def _is_default(own: Message, name: str) -> bool:
    """Whether leaving the field out changes nothing; `engine` never says what is computed."""
    known = own.fields[name]
    return name == "engine" or (not known.repeated and known.message is None and getattr(own, name) == known.default)


def _rounded(own: PoolingParameter, target: Dialect) -> PoolingParameter:
    """Say round_mode: FLOOR as ceil_mode: false for a fork that calls it so, and the other way round."""
    lacking = lacking_fields(own, "pooling_param", target)
    has = target.table["PoolingParameter"]
    if "round_mode" in lacking and "ceil_mode" in has:
        return own.replace(round_mode=None, ceil_mode=False)
    if "ceil_mode" in lacking and "round_mode" in has:
        return own.replace(ceil_mode=None, round_mode=None if own.has("round_mode") else "FLOOR")
    return own


Fault = tuple[str, str, str]
"""What is wrong, the type of the layer, and its name."""


def _counted(faults: list[Fault]) -> list[str]:
    """Return each fault once, with how many layers have it and the first of them."""
    first: dict[tuple[str, str], str] = {}
    for what, type_, name in faults:
        first.setdefault((what, type_), name)
    counts = Counter((what, type_) for what, type_, _ in faults)
    lines = []
    for (what, type_), name in first.items():
        others = f" and {counts[what, type_] - 1} more" if counts[what, type_] > 1 else ""
        lines.append(f"layer {name!r} ({type_}){others}: {what}" if type_ else f"the net: {what}")
    return lines


def _unknown_types(net: Net, types: frozenset[str]) -> Iterator[Fault]:
    for layer in net.layers:
        if layer.type not in types:
            yield f"there is no such type{_WHY.get(layer.type, '')}", layer.type, layer.name


_WHY = {
    "Interp": ", and a Deconvolution with a bilinear filler is no stand-in: its grid is not aligned at the corners",
    "BN": ", and it has no BatchNorm and Scale that compute the same",
}


def _unknown_fields(net: Net, target: Dialect) -> Iterator[Fault]:
    by_name = {layer.name: layer for layer in net.layers}
    for name, path in unknown_fields(target, net):
        yield f"there is no field {path}", by_name[name].type if name else "", name
    for layer in net.layers:
        for extra in layer.params.extras:
            if extra.name not in target.table["LayerParameter"]:
                yield f"there is no field {extra.name}", layer.type, layer.name
        for name, own in layer.params.set_fields():
            if isinstance(own, Message):
                yield from (
                    (f"there is no field {path}", layer.type, layer.name) for path in _extras(own, name, target)
                )


def _extras(own: Message, name: str, target: Dialect) -> Iterator[str]:
    """Yield the paths of fields that nothing here knows, and the fork neither."""
    place = target.table["LayerParameter"].get(name)
    known = target.table.get(place.message, {}) if place else {}
    for path, extra in own.walk_extras(f"{name}."):
        if path.count(".") > 1 or extra.name not in known:
            yield path


def _other_meanings(net: Net, target: Dialect) -> Iterator[Fault]:
    """Layers that the fork would run, as something else: types of one name that are not the same layer."""
    for layer in net.layers:
        interp = layer.get(InterpParameter)
        if layer.type == "Interp" and target.name == "pspnet":
            if len(layer.bottoms) > 1:
                yield "it takes one bottom there; give it height and width", layer.type, layer.name
            elif interp.has("zoom_factor") and interp.has("shrink_factor"):
                yield "there zoom_factor and shrink_factor are applied together", layer.type, layer.name
        for type_, param, forks in _SAME_NAME:
            if layer.type == type_ and target.name in forks and layer.params.has(param):
                yield f"{param} is of another layer of the same name", layer.type, layer.name


_SAME_NAME = (
    ("Normalize", NormalizeParameter.field, ("happynear", "yjxiong")),
    ("SmoothL1Loss", SmoothL1LossParameter.field, ("happynear",)),
)
