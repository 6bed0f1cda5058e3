"""Unknown prototxt fields that cannot change what a trained net computes; they are removed before a conversion."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from prototxt_gen.ir import Layer, Net
from prototxt_gen.net.lowering_checks import is_input_layer, without_unknown_fields
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message

M = TypeVar("M", bound=Message)
_V1_LEARNING_RATES = ("blobs_lr", "weight_decay")


def without_harmless_fields(net: Net, ignore_fields: Collection[str] = ()) -> tuple[Net, list[str]]:
    """Return the net without unknown fields that change no result, and a remark for each kind that was removed.

    Removed are: fields named in `ignore_fields`; all unknown fields of data layers (without a remark), as an input
    replaces the layer; fields that only training uses; and `engine`.
    """
    known = without_unknown_fields(net, ignore_fields).map(_without_data_layer_extras)
    net, training_remarks = _without_training_fields(known)
    net, engine_remarks = _without_engines(net)
    return net, [*training_remarks, *engine_remarks]


def _without_data_layer_extras(layer: Layer) -> Layer:
    if not is_input_layer(layer):
        return layer
    names = {extra.name for path, extra in layer.params.walk_extras()}
    return without_unknown_fields(Net("", (), (layer,)), names).layers[0]


def _without_training_fields(net: Net) -> tuple[Net, list[str]]:
    """Remove unknown fields of fillers, and the learning rates of V1 layers: the weights are already learned."""
    stripped = net.map(
        lambda layer: replace(layer, params=_without_filler_extras(layer.params).without_extras(_V1_LEARNING_RATES))
    )
    return stripped, _removal_remark(net, stripped, "left out, because only training uses it")


def _without_engines(net: Net) -> tuple[Net, list[str]]:
    """Remove engines that are unknown (such as Intel's MKL2017), or set in messages where BVLC's Caffe has none."""
    stripped = without_unknown_fields(net, ("engine",))
    why = "left out, because it selects the code that computes a layer and does not change the result"
    return stripped, _removal_remark(net, stripped, why)


def _removal_remark(before: Net, after: Net, why: str) -> list[str]:
    pairs = zip(before.layers, after.layers, strict=True)
    removed = {path for old, new in pairs for path in _extra_paths(old) - _extra_paths(new)}
    return [f"{why}: {', '.join(sorted(removed))}"] if removed else []


def _extra_paths(layer: Layer) -> set[str]:
    return {path for path, _ in layer.params.walk_extras()}


def _without_filler_extras(message: M) -> M:
    """Return a message whose fillers, at any depth, have known fields only."""
    if isinstance(message, FillerParameter):
        return message.without_extras({extra.name for extra in message.extras})
    inner = {name: _without_filler_extras(value) for name, value in message.set_fields() if isinstance(value, Message)}
    return message.replace(**inner) if inner else message
