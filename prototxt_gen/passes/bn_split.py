"""Splitting of BN, and of BatchNorm with built-in scale and bias, into BatchNorm and Scale, of a net and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from prototxt_gen.ir import Layer, Net, Value
from prototxt_gen.layers.activation.scale import ScaleParameter
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter, divided_by_factor
from prototxt_gen.layers.normalization.bn import SEGNET_EPS, BNParameter, moving_variance
from prototxt_gen.schema.caffe_proto import NOT_LEARNED, LayerParameter, ParamSpec
from prototxt_gen.schema.message import Message
from prototxt_gen.weights import Array, Weights

Blobs = Mapping[str, Array]
Specs = Sequence[ParamSpec]
Replacement = tuple[list[Layer], dict[str, Blobs]]
"""The layers that replace one layer, and their blobs by layer name."""


def split_batch_norms(net: Net, weights: Weights, merged: bool = True) -> tuple[Net, Weights]:
    """Return net and weights with each BN, and each BatchNorm with built-in scale and bias, as BatchNorm and Scale.

    `net` has the layers of all phases. SegNet's BN in INFERENCE mode becomes only a Scale. With `merged=False`, BN with
    four blobs is not split.
    """
    names = _ScaleNames({layer.name for layer in net.layers})
    layers: list[Layer] = []
    blobs = dict(weights.blobs)
    for layer in net.layers:
        replacement = _split_one(layer, weights.of(layer.name), names, merged)
        if replacement is None:
            layers.append(layer)
        else:
            blobs.pop(layer.name, None)
            layers += replacement[0]
            blobs |= replacement[1]
    return net.relinked(layers), Weights(blobs, weights.source, weights.remarks)


def _split_one(layer: Layer, blobs: Blobs, names: _ScaleNames, merged: bool) -> Replacement | None:
    flat = {role: array.reshape(-1) for role, array in blobs.items()}
    if layer.type == "BN" and layer.get(BNParameter).segnet:
        return _split_segnet(layer, flat, names)
    if layer.type == "BN" and merged:
        return _split_bn(layer, flat, names)
    if layer.type == "BatchNorm" and ("scale" in flat or layer.get(BatchNormParameter).merged):
        return _split_batch_norm(layer, flat, names)
    return None


def _split_bn(layer: Layer, flat: Blobs, names: _ScaleNames) -> Replacement:
    p = layer.get(BNParameter)
    variance, eps = moving_variance(flat, p.eps) if flat else (np.zeros(0, "float32"), p.eps)
    own = BatchNormParameter(moving_average_fraction=p.momentum, eps=eps)
    own = own.replace(use_global_stats=True) if p.frozen else own
    scale = ScaleParameter(bias_term=True)
    scale = scale.replace(filler=p.slope_filler) if p.has("slope_filler") else scale
    scale = scale.replace(bias_filler=p.bias_filler) if p.has("bias_filler") else scale
    kept = {**_statistic_blobs(flat["mean"], variance)} if flat else {}
    learned = {"scale": flat["slope"], "bias": flat["bias"]} if flat else {}
    return _batch_norm_and_scale(
        layer, own, scale, (layer.params.param[2:], layer.params.param[:2]), (kept, learned), names
    )


def _split_segnet(layer: Layer, flat: Blobs, names: _ScaleNames) -> Replacement:
    p = layer.get(BNParameter)
    scale = ScaleParameter(bias_term=True)
    learned = {"scale": flat["scale"], "bias": flat["shift"]} if flat else {}
    if p.bn_mode == "INFERENCE":
        alone = with_parameters(layer, "Scale", layer.bottoms, layer.tops, scale, layer.params.param)
        return [alone], {layer.name: learned}
    zeros = np.zeros_like(flat["scale"]) if flat else np.zeros(0, "float32")
    own = BatchNormParameter(use_global_stats=False, eps=SEGNET_EPS)
    kept = _statistic_blobs(zeros, zeros) if flat else {}
    return _batch_norm_and_scale(layer, own, scale, ((), layer.params.param), (kept, learned), names)


def _split_batch_norm(layer: Layer, flat: Blobs, names: _ScaleNames) -> Replacement:
    p = layer.get(BatchNormParameter)
    own = p.replace(
        scale_filler=None, bias_filler=None, scale_bias=None, eps=max(p.eps, 1e-5) if p.scale_bias else None
    )
    own = own if p.scale_bias or not p.has("eps") else own.replace(eps=p.eps)
    scale = ScaleParameter(bias_term=True)
    scale = scale.replace(filler=p.scale_filler) if p.has("scale_filler") else scale
    scale = scale.replace(bias_filler=p.bias_filler) if p.has("bias_filler") else scale
    kept = _statistic_blobs(*divided_by_factor(flat)) if flat else {}
    learned = {"scale": flat["scale"], "bias": flat["bias"]} if flat else {}
    return _batch_norm_and_scale(layer, own, scale, specs_of(layer), (kept, learned), names)


def specs_of(layer: Layer) -> tuple[Specs, Specs]:
    """Return the `param` of the statistics of a BatchNorm, and those of its built-in scale and bias."""
    param, p = layer.params.param, layer.get(BatchNormParameter)
    if p.scale_bias or not p.merged:
        return param[:3], param[3:]
    return param[2:], param[:2]


def _statistic_blobs(mean: Array, variance: Array) -> dict[str, Array]:
    return {"mean": mean, "variance": variance, "factor": np.ones(1, "float32")}


def _batch_norm_and_scale(
    layer: Layer,
    norm: Message,
    scale: Message,
    specs: tuple[Specs, Specs],
    blobs: tuple[Blobs, Blobs],
    names: _ScaleNames,
) -> Replacement:
    """Return a BatchNorm with the layer's name and a Scale behind it that writes in place.

    `norm` and `scale` are their parameters; `specs` and `blobs` are pairs of `param` and blobs, one for each layer.
    """
    name = names.scale_of(layer.name)
    first = with_parameters(layer, "BatchNorm", layer.bottoms, layer.tops, norm, _statistic_specs(layer, specs[0]))
    second = with_parameters(replace(layer, name=name), "Scale", layer.tops, layer.tops, scale, specs[1])
    return [first, second], {first.name: blobs[0], name: blobs[1]} if blobs[0] else {}


def _statistic_specs(layer: Layer, statistics: Specs) -> Specs:
    """Return the `param` of mean, variance and factor, none of which is learned.

    Layers that share mean and variance must share the factor too, which counts the batches in the two sums.
    """
    shared = [spec.name for spec in statistics]
    if not any(shared):
        return (NOT_LEARNED,) * 3 if layer.params.param else ()
    names = (*shared, "")[:2]
    factor = (*shared, "", "")[2] or f"{next(filter(None, names))}/factor"
    return tuple(NOT_LEARNED.replace(name=name) if name else NOT_LEARNED for name in (*names, factor))


class _ScaleNames:
    """Gives each new Scale a unique name; layers of two phases with one name share it, to share weights."""

    def __init__(self, taken: set[str]) -> None:
        self.taken, self.assigned = taken, dict[str, str]()

    def scale_of(self, layer: str) -> str:
        """Return the name of the Scale behind the layer of this name."""
        if layer not in self.assigned:
            self.assigned[layer] = next(name for name in _numbered_names(f"{layer}/scale") if name not in self.taken)
            self.taken.add(self.assigned[layer])
        return self.assigned[layer]


def _numbered_names(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}_{count}" for count in range(2, 1_000_000))


def with_parameters(
    layer: Layer,
    type_: str,
    bottoms: tuple[Value, ...],
    tops: tuple[Value, ...],
    parameters: Message,
    specs: Specs,
) -> Layer:
    """Return a layer with the name and the include, exclude and phase fields of `layer`, and otherwise as given."""
    kept = {name: value for name, value in layer.params.set_fields() if name in ("include", "exclude", "phase")}
    fields = {parameters.field: parameters} if parameters else {}
    params = LayerParameter(**kept, **fields, **({"param": tuple(specs)} if specs else {}))
    return Layer(layer.name, type_, bottoms, tops, params, layer.line)
