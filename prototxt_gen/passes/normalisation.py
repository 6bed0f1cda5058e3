"""Batch normalisation in two forms, net and weights together: merged into BN, or BatchNorm followed by Scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from prototxt_gen.errors import UnsupportedError
from prototxt_gen.ir import Layer, Net, Value
from prototxt_gen.layers.batch_norm import NVCAFFE_EPS, BatchNormParameter, divided
from prototxt_gen.layers.bn import SEGNET_EPS, VARIANCE, BNParameter, moving_variance
from prototxt_gen.layers.scale import ScaleParameter
from prototxt_gen.message import Message
from prototxt_gen.schema import LayerParameter, ParamSpec
from prototxt_gen.weights import Array, Weights

Blobs = Mapping[str, Array]
Made = tuple[list[Layer], dict[str, Blobs]]
"""The layers that take the place of one, and their blobs by layer name."""
_NOT_LEARNED = (ParamSpec(lr_mult=0, decay_mult=0),) * 3


def split(net: Net, weights: Weights, merged: bool = True) -> tuple[Net, Weights]:
    """Return the net with every BN, and every BatchNorm with a scale of its own, as BatchNorm and Scale.

    Works on the layers of all phases. SegNet's BN in INFERENCE mode becomes a Scale alone. Not `merged`: BN of four
    blobs stays.
    """
    taken = {layer.name for layer in net.layers}
    layers: list[Layer] = []
    blobs = dict(weights.blobs)
    for layer in net.layers:
        made = _split_one(layer, weights.of(layer.name), taken, merged)
        if made is None:
            layers.append(layer)
        else:
            blobs.pop(layer.name, None)
            layers += made[0]
            blobs |= made[1]
    return net.relinked(layers), Weights(blobs, weights.source, weights.remarks)


def _split_one(layer: Layer, blobs: Blobs, taken: set[str], merged: bool) -> Made | None:
    flat = {role: array.reshape(-1) for role, array in blobs.items()}
    if layer.type == "BN" and layer.get(BNParameter).segnet:
        return _split_segnet(layer, flat, taken)
    if layer.type == "BN" and merged:
        return _split_bn(layer, flat, taken)
    if layer.type == "BatchNorm" and ("scale" in flat or layer.get(BatchNormParameter).merged):
        return _split_batch_norm(layer, flat, taken)
    return None


def _split_bn(layer: Layer, flat: Blobs, taken: set[str]) -> Made:
    p = layer.get(BNParameter)
    variance, eps = moving_variance(flat, p.eps) if flat else (np.zeros(0, "float32"), p.eps)
    own = BatchNormParameter(moving_average_fraction=p.momentum, eps=eps)
    own = own.replace(use_global_stats=True) if p.frozen else own
    scale = ScaleParameter(bias_term=True)
    scale = scale.replace(filler=p.slope_filler) if p.has("slope_filler") else scale
    scale = scale.replace(bias_filler=p.bias_filler) if p.has("bias_filler") else scale
    kept = {**_statistics(flat["mean"], variance)} if flat else {}
    learned = {"scale": flat["slope"], "bias": flat["bias"]} if flat else {}
    return _pair(layer, own, scale, layer.params.param[:2], (kept, learned), taken)


def _split_segnet(layer: Layer, flat: Blobs, taken: set[str]) -> Made:
    p = layer.get(BNParameter)
    scale = ScaleParameter(bias_term=True)
    learned = {"scale": flat["scale"], "bias": flat["shift"]} if flat else {}
    if p.bn_mode == "INFERENCE":
        alone = _with(layer, "Scale", layer.bottoms, layer.tops, scale, layer.params.param)
        return [alone], {layer.name: learned}
    zeros = np.zeros_like(flat["scale"]) if flat else np.zeros(0, "float32")
    own = BatchNormParameter(use_global_stats=False, eps=SEGNET_EPS)
    kept = _statistics(zeros, zeros) if flat else {}
    return _pair(layer, own, scale, layer.params.param, (kept, learned), taken)


def _split_batch_norm(layer: Layer, flat: Blobs, taken: set[str]) -> Made:
    p = layer.get(BatchNormParameter)
    own = p.replace(
        scale_filler=None, bias_filler=None, scale_bias=None, eps=max(p.eps, 1e-5) if p.scale_bias else None
    )
    own = own if p.scale_bias or not p.has("eps") else own.replace(eps=p.eps)
    scale = ScaleParameter(bias_term=True)
    scale = scale.replace(filler=p.scale_filler) if p.has("scale_filler") else scale
    scale = scale.replace(bias_filler=p.bias_filler) if p.has("bias_filler") else scale
    kept = _statistics(*divided(flat)) if flat else {}
    learned = {"scale": flat["scale"], "bias": flat["bias"]} if flat else {}
    return _pair(layer, own, scale, (), (kept, learned), taken)


def _statistics(mean: Array, variance: Array) -> dict[str, Array]:
    return {"mean": mean, "variance": variance, "factor": np.ones(1, "float32")}


def _pair(
    layer: Layer, own: Message, scale: Message, specs: Sequence[ParamSpec], blobs: tuple[Blobs, Blobs], taken: set[str]
) -> Made:
    """Return a BatchNorm of the layer's name, and a Scale after it that writes in place."""
    name = next(n for n in _names(f"{layer.name}/scale") if n not in taken)
    taken.add(name)
    first = _with(layer, "BatchNorm", layer.bottoms, layer.tops, own, _NOT_LEARNED if layer.params.param else ())
    second = _with(replace(layer, name=name), "Scale", layer.tops, layer.tops, scale, specs)
    return [first, second], {first.name: blobs[0], name: blobs[1]} if blobs[0] else {}


def _names(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}_{count}" for count in range(2, 1_000_000))


def _with(
    layer: Layer,
    type_: str,
    bottoms: tuple[Value, ...],
    tops: tuple[Value, ...],
    own: Message,
    specs: Sequence[ParamSpec],
) -> Layer:
    """Return a layer of the same rules as another, with parameters of its own."""
    kept = {name: value for name, value in layer.params.set_fields() if name in ("include", "exclude", "phase")}
    fields = {own.field: own} if own else {}
    made = LayerParameter(**kept, **fields, **({"param": tuple(specs)} if specs else {}))
    return Layer(layer.name, type_, bottoms, tops, made, layer.line)


def merge(net: Net, weights: Weights) -> tuple[Net, Weights]:
    """Return the net with every BatchNorm, and the Scale that only it feeds, as one BN; a fourth blob is `variance`.

    UnsupportedError, all in one text, where a BatchNorm normalises by the batch in the TEST phase: BN does not.
    """
    merger = _Merger(net, weights)
    layers = [made for index in range(len(net.layers)) if (made := merger.at(index)) is not None]
    if merger.refused:
        raise UnsupportedError("".join(f"\n  {text}" for text in merger.refused).strip())
    blobs = {name: found for name, found in weights.blobs.items() if name not in merger.gone} | merger.made
    return net.relinked(layers), Weights(blobs, weights.source, weights.remarks)


class _Merger:
    def __init__(self, net: Net, weights: Weights) -> None:
        self.net, self.weights = net, weights
        self.uses = Counter(value for layer in net.layers for value in layer.bottoms)
        self.users = {value: index for index, layer in enumerate(net.layers) for value in layer.bottoms}
        self.gone: set[str] = set()
        self.dropped: set[int] = set()
        self.made: dict[str, Blobs] = {}
        self.refused: list[str] = []

    def at(self, index: int) -> Layer | None:
        """Return what stands in the place of a layer: nothing for a Scale that was merged."""
        layer = self.net.layers[index]
        if index in self.dropped or layer.type != "BatchNorm":
            return None if index in self.dropped else layer
        p = layer.get(BatchNormParameter)
        if p.has("use_global_stats") and not p.use_global_stats and not p.scale_bias:
            self.refused.append(f"{layer.error('use_global_stats: false normalises by the batch; BN does not')}")
            return layer
        return self._merged(layer, self._scale_after(index))

    def _scale_after(self, index: int) -> Layer | None:
        """Return the Scale that alone takes the layer's top, channel by channel, with nothing in between."""
        layer = self.net.layers[index]
        top = layer.tops[0]
        user = self.users.get(top)
        if self.uses[top] != 1 or user is None:
            return None
        scale = self.net.layers[user]
        p = scale.get(ScaleParameter)
        touched = {v.blob for other in self.net.layers[index + 1 : user] for v in (*other.bottoms, *other.tops)}
        own = {v.blob for v in (*layer.bottoms, *layer.tops, *scale.tops)}
        fits = scale.type == "Scale" and len(scale.bottoms) == 1 and (p.axis, p.num_axes) == (1, 1)
        if not fits or touched & own:
            return None
        self.dropped.add(user)
        return scale

    def _merged(self, layer: Layer, scale: Layer | None) -> Layer:
        p = layer.get(BatchNormParameter)
        own = BNParameter(momentum=p.moving_average_fraction, eps=max(p.eps, NVCAFFE_EPS) if p.scale_bias else p.eps)
        own = own.replace(slope_filler={"value": 1})
        if p.use_global_stats:
            own = own.replace(frozen=True)
        specs = (*(scale.params.param if scale else ())[:2], *layer.params.param[:2])
        tops = scale.tops if scale else layer.tops
        names = {layer.name} | ({scale.name} if scale else set())
        if self.weights.of(layer.name):
            self.made[layer.name] = self._blobs(layer, scale)
            self.gone |= names
        return _with(layer, "BN", layer.bottoms, tops, own, specs if len(specs) == 4 else ())

    def _blobs(self, layer: Layer, scale: Layer | None) -> Blobs:
        own = self.weights.of(layer.name)
        affine = self.weights.of(scale.name) if scale else {}
        mean, variance = divided(own)
        slope, bias = own.get("scale", np.ones_like(mean)), own.get("bias", np.zeros_like(mean))
        if scale is not None:
            by = affine["scale"].reshape(-1)
            slope, bias = slope.reshape(-1) * by, bias.reshape(-1) * by + affine.get("bias", np.zeros_like(mean))
        found = {"slope": slope, "bias": bias, "mean": mean, VARIANCE: variance}
        return {role: array.reshape(1, -1, 1, 1).astype("float32") for role, array in found.items()}
