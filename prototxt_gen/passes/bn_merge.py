"""BatchNorm, and the Scale after it, as one BN, net and weights together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Net
from prototxt_gen.layers.activation.scale import ScaleParameter
from prototxt_gen.layers.normalization._batch_norm_shared import VARIANCE
from prototxt_gen.layers.normalization.batch_norm import NVCAFFE_EPS, BatchNormParameter, divided_by_factor
from prototxt_gen.layers.normalization.bn import BNParameter
from prototxt_gen.net.phase_rules import PHASES
from prototxt_gen.passes.bn_split import Blobs, Specs, specs_of, with_parameters
from prototxt_gen.schema.caffe_proto import NOT_LEARNED, ParamSpec
from prototxt_gen.weights import Weights

Indexed = dict[int, Layer]
"""The layers of the net in one state, by their places in the whole net."""


def merge(net: Net, weights: Weights) -> tuple[Net, Weights]:
    """Return the net with every BatchNorm, and the Scale that only it feeds, as one BN; a fourth blob is `variance`.

    Works on the layers of all phases: a Scale goes where in each state of the net it follows a BatchNorm that it is
    merged with. UnsupportedError, all in one text, where a BatchNorm normalises by the batch in the TEST phase: BN does
    not.
    """
    states = [(phase, _indexed(net, phase, stages, level)) for phase, stages, level in _states(net)]
    refused = [text for index, layer in enumerate(net.layers) for text in _refusals(index, layer, states)]
    if refused:
        raise UnsupportedError("".join(f"\n  {text}" for text in refused).strip())
    partners = _partners(net, [layers for _, layers in states])
    merged, gone, made = [], set[str](), dict[str, Blobs]()
    for index, layer in enumerate(net.layers):
        if layer.type == "BatchNorm":
            scale = net.layers[partners[index]] if index in partners else None
            merged.append(_merged(layer, scale))
            if weights.of(layer.name):
                made[layer.name] = _blobs(layer, scale, weights)
                gone |= {layer.name} | ({scale.name} if scale else set())
        elif index not in partners.values():
            merged.append(layer)
    blobs = {name: found for name, found in weights.blobs.items() if name not in gone} | made
    return net.relinked(merged), Weights(blobs, weights.source, weights.remarks)


def _states(net: Net) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Yield the states that the rules of the layers tell apart: phase, stages, level."""
    rules = [rule for layer in net.layers for rule in (*layer.params.include, *layer.params.exclude)]
    named = dict.fromkeys(stage for rule in rules for stage in (*rule.stage, *rule.not_stage))
    own = net.params.state
    stages = dict.fromkeys([tuple(own.stage), (), tuple(named), *((stage,) for stage in named)])
    levels = {rule.min_level for rule in rules if rule.has("min_level")}
    levels |= {rule.max_level for rule in rules if rule.has("max_level")}
    yield from product(PHASES, stages, sorted({own.level, 0} | levels))


def _indexed(net: Net, phase: str, stages: tuple[str, ...], level: int) -> Indexed:
    kept, made = list(reversed(net.at(phase, stages, level).layers)), {}
    for index, layer in enumerate(net.layers):
        if kept and kept[-1].params is layer.params and kept[-1].name == layer.name:
            made[index] = kept.pop()
    return made


def _refusals(index: int, layer: Layer, states: Sequence[tuple[str, Indexed]]) -> Iterator[str]:
    if layer.type != "BatchNorm":
        return
    p = layer.get(BatchNormParameter)
    by_batch = p.has("use_global_stats") and not p.use_global_stats and not p.scale_bias
    if by_batch and any(phase == "TEST" and index in layers for phase, layers in states):
        yield str(layer.error("use_global_stats: false normalises by the batch; BN does not"))
    if not p.add_eps_before_sqrt:
        yield str(layer.error("add_eps_before_sqrt: false adds eps to the deviation; BN adds it to the variance"))


def _partners(net: Net, states: Sequence[Indexed]) -> dict[int, int]:
    """Return for each BatchNorm the Scale that it is merged with, by their places."""
    followed = [_scales_after(layers) for layers in states]
    found: dict[int, int] = {}
    for index, layer in enumerate(net.layers):
        scales = {after.get(index) for after, layers in zip(followed, states, strict=True) if index in layers}
        if layer.type == "BatchNorm" and len(scales) == 1 and (scale := scales.pop()) is not None:
            found[index] = scale
    for scale in set(found.values()):
        fed = all(any(found.get(i) == scale for i in layers) for layers in states if scale in layers)
        if not fed:
            found = {index: other for index, other in found.items() if other != scale}
    return _with_all_sharers(net, found)


def _with_all_sharers(net: Net, partners: dict[int, int]) -> dict[int, int]:
    """Leave out Scales whose blobs a layer shares that stays: those of BN have another shape."""
    stay = [layer for i, layer in enumerate(net.layers) if i not in partners.values() and layer.type != "BatchNorm"]
    held = {spec.name for layer in stay for spec in layer.params.param if spec.name}
    kept = {i: j for i, j in partners.items() if not held & {spec.name for spec in net.layers[j].params.param}}
    return kept if len(kept) == len(partners) else _with_all_sharers(net, kept)


def _scales_after(layers: Indexed) -> dict[int, int]:
    """Return the Scale that alone takes a BatchNorm's top, channel by channel, with nothing in between, by places."""
    uses = Counter(value for layer in layers.values() for value in layer.bottoms)
    users = {value: index for index, layer in layers.items() for value in layer.bottoms}
    return {
        index: users[layer.tops[0]]
        for index, layer in layers.items()
        if layer.type == "BatchNorm" and uses[layer.tops[0]] == 1 and _fits(layers, index, users[layer.tops[0]])
    }


def _fits(layers: Indexed, index: int, user: int) -> bool:
    layer, scale = layers[index], layers[user]
    p = scale.get(ScaleParameter)
    between = (other for place, other in layers.items() if index < place < user)
    touched = {value.blob for other in between for value in (*other.bottoms, *other.tops)}
    own = {value.blob for value in (*layer.bottoms, *layer.tops, *scale.tops)}
    is_plain = scale.type == "Scale" and len(scale.bottoms) == 1 and (p.axis, p.num_axes) == (1, 1)
    return is_plain and not touched & own


def _merged(layer: Layer, scale: Layer | None) -> Layer:
    p = layer.get(BatchNormParameter)
    eps = max(p.eps, NVCAFFE_EPS) if p.scale_bias else p.eps
    own = BNParameter(slope_filler={"value": 1}, momentum=p.moving_average_fraction, eps=eps)
    affine = scale.get(ScaleParameter) if scale else ScaleParameter()
    own = own.replace(slope_filler=affine.filler) if affine.has("filler") else own
    own = own.replace(bias_filler=affine.bias_filler) if affine.has("bias_filler") else own
    own = own.replace(frozen=True) if p.use_global_stats else own
    tops = scale.tops if scale else layer.tops
    return with_parameters(layer, "BN", layer.bottoms, tops, own, _specs(layer, scale))


def _specs(layer: Layer, scale: Layer | None) -> Specs:
    """Return the `param` of BN's four blobs: what was not there is not learned either."""
    statistics, own = specs_of(layer)
    has_bias = scale is not None and scale.get(ScaleParameter).bias_term
    if has_bias and not (layer.params.param or (scale and scale.params.param)):
        return ()
    there, count = (own, 2) if layer.get(BatchNormParameter).merged else ((), 0)
    if scale is not None:
        there, count = scale.params.param, 1 + has_bias
    learned = (*there, ParamSpec(), ParamSpec())[:count]
    return (*learned, NOT_LEARNED, NOT_LEARNED)[:2] + (*statistics, NOT_LEARNED, NOT_LEARNED)[:2]


def _blobs(layer: Layer, scale: Layer | None, weights: Weights) -> Blobs:
    own = weights.of(layer.name)
    mean, variance = divided_by_factor(own)
    slope, bias = own.get("scale", np.ones_like(mean)), own.get("bias", np.zeros_like(mean))
    if scale is not None:
        affine = weights.of(scale.name)
        by = affine["scale"].reshape(-1)
        slope, bias = slope.reshape(-1) * by, bias.reshape(-1) * by + affine.get("bias", np.zeros_like(mean))
    found = {"slope": slope, "bias": bias, "mean": mean, VARIANCE: variance}
    return {role: array.reshape(1, -1, 1, 1).astype("float32") for role, array in found.items()}
