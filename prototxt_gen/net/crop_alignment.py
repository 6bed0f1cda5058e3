"""Crop layers without crop_param: where they cut in BVLC's Caffe, and where in the Caffe of HED and the first FCNs.

In BVLC's Caffe such a layer cuts at offset 0. In forks of 2015 Crop has no parameters; it cuts where the coordinates of
its two bottoms agree. Each layer maps coordinates of its bottom to coordinates of its top, axis by axis, as
scale·x + shift. Source: s9xie/hed src/caffe/layers/crop_layer.cpp CropLayer::LayerSetUp, include/caffe/util/coords.hpp
FilterMap, include/caffe/vision_layers.hpp coord_map; longjon/caffe has the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Layer, Net
from prototxt_gen.layers.vision._convolution_window import window
from prototxt_gen.layers.vision.crop import CropParameter
from prototxt_gen.layers.vision.pooling import PoolingParameter, pool_window
from prototxt_gen.net.upgrade import V1_CROP_MARK
from prototxt_gen.schema.message import Extra

CROP_RULES = ("coordinates", "offset")
"""Meanings of a Crop layer without crop_param: that of the forks of 2015, and that of BVLC's Caffe."""
_TYPES_OF_COORDINATE_FORKS = frozenset({"ImageLabelmapData", "MultiStageMeanfield"})
"""Types that only forks with the rule "coordinates" have: HED and its successors, and CRF-RNN."""
_SAME_COORDINATES = frozenset((
    "AbsVal", "BatchNorm", "Bias", "BN", "BNLL", "Concat", "Dropout", "Eltwise", "ELU", "Exp", "Log", "LRN", "MVN",
    "Power", "PReLU", "ReLU", "Scale", "Sigmoid", "Split", "TanH", "Threshold",
))  # fmt: skip
"""Types whose tops have the coordinates of the first bottom: those of any of the forks, and those of
python/caffe/coord_map.py in BVLC's Caffe."""
_CONVOLUTIONS = frozenset({"Convolution", "ConvolutionDepthwise", "ConvolutionDepthWise", "DepthwiseConvolution"})
_ANY_SHAPE = (1, 1, 1, 1)

Offset = tuple[int, int]
LayerKey = tuple[str, str, tuple[str, ...], tuple[str, ...]]
"""Name, type, bottoms and tops of a layer."""


@dataclass(frozen=True)
class _Axis:
    """The map scale·x + shift from coordinates of a source to coordinates of a blob, on one axis."""

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def after(self, first: _Axis) -> _Axis:
        """Return the map that applies `first` and then this one."""
        return _Axis(self.scale * first.scale, self.scale * first.shift + self.shift)

    def inverse(self) -> _Axis:
        return _Axis(1 / self.scale, -self.shift / self.scale)


_IDENTITY = (_Axis(), _Axis())


@dataclass(frozen=True)
class _Position:
    """Coordinates of a blob as maps, height and width, from those of `source`, the last blob that has none."""

    source: str
    axes: tuple[_Axis, ...] = _IDENTITY


def is_crop_without_rule(layer: Layer) -> bool:
    """Return whether it is a Crop layer with neither crop_param nor the mark of a V1 layer."""
    return layer.type == "Crop" and len(layer.bottoms) == 2 and not layer.params.has("crop_param") and not _mark(layer)


def ambiguous_crops(net: Net) -> list[tuple[Layer, Offset]]:
    """Return the Crop layers that the two rules cut differently if nothing in the net tells which rule is meant.

    `net` is a net of one phase. Each layer comes with its offset by the rule "coordinates".
    """
    if _rule_of_file(net):
        return []
    offsets = _offsets(net)
    crops = [(layer, offsets.get(_key(layer))) for layer in net.layers if is_crop_without_rule(layer)]
    return [(layer, offset) for layer, offset in crops if isinstance(offset, tuple) and any(offset)]


def two_meanings(offset: Offset) -> str:
    """Return the sentence on a Crop layer that the two rules cut differently."""
    height, width = offset
    return (
        f"it has no crop_param: BVLC's Caffe cuts at offset 0, the Caffe of HED and the first FCNs at {height} and "
        f"{width}, where the coordinates of its bottoms agree; give --crop-rule offset or --crop-rule coordinates"
    )


def with_crop_offsets(net: Net, rule: str | None = None) -> tuple[Net, list[str]]:
    """Return the net of one phase whose Crop layers all cut at given offsets, and remarks for the user.

    `rule` is one of CROP_RULES and counts for Crop layers without crop_param. By default the net must tell it: a net
    with crop_param is BVLC's, types that only certain forks have tell the other rule, and where both rules cut at
    offset 0, or coordinates cannot be compared, the rule does not matter. Raises NetError otherwise, and where
    coordinates are asked for but cannot be compared.
    """
    if rule not in (None, *CROP_RULES):
        raise NetError(f"there is no crop rule {rule!r}; it is {' or '.join(CROP_RULES)}")
    if not any(map(is_crop_without_rule, net.layers)):
        return net, []
    if rule is None and (unclear := ambiguous_crops(net)):
        layer, offset = unclear[0]
        more = f" (and {len(unclear) - 1} more layers)" if len(unclear) > 1 else ""
        raise NetError(f"{net.source + ': ' if net.source else ''}{layer.error(two_meanings(offset))}{more}")
    rule = rule or _rule_of_file(net)
    if rule == "coordinates":
        return _with_coordinates(net)
    changed = net.map(lambda layer: _with_offset(layer, (0, 0)) if is_crop_without_rule(layer) else layer)
    return (changed if rule else net), []


def with_crop_offsets_in_all_phases(net: Net, rule: str | None) -> Net:
    """Return a net of all phases with offsets for its Crop layers, if a rule is given.

    Raises NetError as `with_crop_offsets`.
    """
    if rule is None:
        return net
    made: dict[LayerKey, CropParameter] = {}
    for phase in ("TRAIN", "TEST"):
        for layer in with_crop_offsets(net.at(phase), rule)[0].layers:
            if layer.type == "Crop" and made.setdefault(_key(layer), layer.get(CropParameter)) != layer.get(
                CropParameter
            ):
                raise layer.error("the coordinates of its bottoms agree at another place in TRAIN than in TEST")

    def resolved(layer: Layer) -> Layer:
        if not is_crop_without_rule(layer) or _key(layer) not in made:
            return layer
        return replace(layer, params=layer.params.replace(crop_param=made[_key(layer)]))

    return net.map(resolved)


def with_v1_crops_resolved(net: Net) -> Net:
    """Return a net of all phases whose V1 layers of type CROP, which always align coordinates, have their offsets.

    Where coordinates cannot be compared, the layer keeps its mark, an unknown field that says why.
    """
    if not any(map(_mark, net.layers)):
        return net
    found: dict[LayerKey, set[Offset | str]] = {}
    for phase in ("TRAIN", "TEST"):
        try:
            for key, offset in _offsets(net.at(phase)).items():
                found.setdefault(key, set()).add(offset)
        except NetError:
            continue  # include and exclude rules in one layer, which other checks report
    return net.map(lambda layer: _with_v1_offset(layer, found.get(_key(layer), set())) if _mark(layer) else layer)


def _with_v1_offset(layer: Layer, found: set[Offset | str]) -> Layer:
    offset = next(iter(found)) if len(found) == 1 else "they agree at different places in TRAIN and TEST"
    if isinstance(offset, tuple):
        unmarked = replace(layer, params=layer.params.without_extras({V1_CROP_MARK}))
        return _with_offset(unmarked, offset)
    mark = _mark(layer)
    assert mark is not None
    reason = f"a V1 layer of type CROP cuts where the coordinates of its bottoms agree, but {offset}"
    params = layer.params.without_extras({V1_CROP_MARK})
    extras = (*params.extras, Extra(V1_CROP_MARK, mark.value, reason, mark.line))
    return replace(layer, params=params._make(dict(params.set_fields()), extras))


def _mark(layer: Layer) -> Extra | None:
    return next((extra for extra in layer.params.extras if extra.name == V1_CROP_MARK), None)


def _key(layer: Layer) -> LayerKey:
    return (layer.name, layer.type, tuple(v.blob for v in layer.bottoms), tuple(v.blob for v in layer.tops))


def _rule_of_file(net: Net) -> str | None:
    """Return the rule that other layers of the net tell, None if they tell none."""
    if any(layer.type == "Crop" and layer.params.has("crop_param") for layer in net.layers):
        return "offset"
    return "coordinates" if any(layer.type in _TYPES_OF_COORDINATE_FORKS for layer in net.layers) else None


def _with_offset(layer: Layer, offset: Offset) -> Layer:
    return replace(layer, params=layer.params.replace(crop_param=CropParameter(axis=2, offset=offset)))


def _with_coordinates(net: Net) -> tuple[Net, list[str]]:
    offsets, remarks = _offsets(net), []

    def resolved(layer: Layer) -> Layer:
        if not is_crop_without_rule(layer):
            return layer
        offset = offsets[_key(layer)]
        if not isinstance(offset, tuple):
            raise layer.error(f"it cannot cut where the coordinates of its bottoms agree: {offset}")
        where = f"layer with top {layer.tops[0].blob!r} (Crop)" if layer.tops else f"layer {layer.name!r} (Crop)"
        remarks.append(f"{where}: it cuts where the coordinates of its bottoms agree, at {offset[0]} and {offset[1]}")
        return _with_offset(layer, offset)

    return net.map(resolved), remarks


def _offsets(net: Net) -> Mapping[LayerKey, Offset | str]:
    """Return the offset of each Crop layer without crop_param by the rule "coordinates", or why there is none."""
    positions = {value.blob: _Position(value.blob) for value in net.inputs}
    found: dict[LayerKey, Offset | str] = {}
    for layer in net.layers:
        axes = _axes_of_crop(layer, positions, found) if layer.type == "Crop" else _axes(layer)
        bottom = positions.get(layer.bottoms[0].blob) if layer.bottoms else None
        for top in layer.tops:
            if top.blob in positions:
                continue  # in place: only the first layer that writes a blob counts
            known = axes is not None and bottom is not None
            positions[top.blob] = _moved(bottom, axes) if known and bottom and axes else _Position(top.blob)
    return found


def _moved(bottom: _Position, axes: tuple[_Axis, ...]) -> _Position:
    return _Position(bottom.source, tuple(a.after(b) for a, b in zip(axes, bottom.axes, strict=True)))


def _axes(layer: Layer) -> tuple[_Axis, ...] | None:
    """Return the maps from coordinates of the first bottom to those of the tops, None if they are not known."""
    if layer.type in _SAME_COORDINATES:
        return _IDENTITY
    try:
        if layer.type in _CONVOLUTIONS:
            return tuple(axis.inverse() for axis in _convolution_axes(layer))
        if layer.type == "Deconvolution":
            return tuple(_convolution_axes(layer))
        if layer.type == "Pooling" and not layer.get(PoolingParameter).global_pooling:
            w = pool_window(layer, (1, 1))
            return tuple(a.inverse() for a in map(_filter_axis, w.kernel, w.stride, w.begin))
    except NetError:
        pass  # fields that other checks report
    return None


def _convolution_axes(layer: Layer) -> Iterator[_Axis]:
    w = window(layer, _ANY_SHAPE)
    return map(_filter_axis, w.extent, w.stride, w.pad)


def _filter_axis(kernel: int, stride: int, pad: int) -> _Axis:
    """Return the map from positions of a kernel to the pixels in their middle. Source: coords.hpp FilterMap."""
    return _Axis(Fraction(stride), Fraction(kernel - 1, 2) - pad)


def _axes_of_crop(
    layer: Layer, positions: Mapping[str, _Position], found: dict[LayerKey, Offset | str]
) -> tuple[_Axis, ...] | None:
    """Return the maps of a Crop layer. For one without crop_param, add its offset to `found`."""
    if layer.params.has("crop_param") or len(layer.bottoms) != 2:
        p = layer.get(CropParameter)
        offset = p.offset if len(p.offset) == 2 else (p.offset or (0,)) * 2
        return tuple(_Axis(shift=Fraction(-each)) for each in offset) if p.axis in (2, -2) else None
    aligned = _aligned(*(positions.get(value.blob, _Position("")) for value in layer.bottoms))
    found[_key(layer)] = aligned
    return tuple(_Axis(shift=Fraction(-each)) for each in aligned) if isinstance(aligned, tuple) else None


def _aligned(data: _Position, like: _Position) -> Offset | str:
    """Return where coordinate 0 of `like` lies in `data`, height and width, or why there is no such place."""
    if data.source != like.source:
        return f"they have no common source, but {data.source!r} and {like.source!r}"
    maps = [b.after(a.inverse()) for a, b in zip(data.axes, like.axes, strict=True)]
    if any(one.scale != 1 for one in maps):
        return "one bottom is a scaled form of the other"
    if any(one.shift > 0 for one in maps):
        return "the first bottom begins after the second"
    if any(one.shift.denominator != 1 for one in maps):
        return "they agree only between pixels"
    return (int(-maps[0].shift), int(-maps[1].shift))
