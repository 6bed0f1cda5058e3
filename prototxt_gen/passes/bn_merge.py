"""Merging of each BatchNorm, with the Scale after it if there is one, into one BN, in a net and its weights."""

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

LayersByIndex = dict[int, Layer]
"""The layers of a net in one state, by their indices in the net of all states."""


def merge_batch_norms(net: Net, weights: Weights) -> tuple[Net, Weights]:
    """Return net and weights with each BatchNorm and the Scale behind it replaced by one BN.

    `net` has the layers of all phases: a Scale is merged only if it follows a merged BatchNorm in every phase, stage
    and level. The fourth blob of each BN is `variance`. Raises UnsupportedError, with all reasons in one text, for
    each BatchNorm that BN cannot replace, such as one that normalises by the batch in the TEST phase.
    """
    states = [(phase, _layers_by_index(net, phase, stages, level)) for phase, stages, level in _distinct_states(net)]
    refused = [text for index, layer in enumerate(net.layers) for text in _refusals(index, layer, states)]
    if refused:
        raise UnsupportedError("".join(f"\n  {text}" for text in refused).strip())
    partners = _scale_partners(net, [layers for _, layers in states])
    merged, replaced, bn_blobs = [], set[str](), dict[str, Blobs]()
    for index, layer in enumerate(net.layers):
        if layer.type == "BatchNorm":
            scale = net.layers[partners[index]] if index in partners else None
            merged.append(_merged_layer(layer, scale))
            if weights.of(layer.name):
                bn_blobs[layer.name] = _merged_blobs(layer, scale, weights)
                replaced |= {layer.name} | ({scale.name} if scale else set())
        elif index not in partners.values():
            merged.append(layer)
    blobs = {name: roles for name, roles in weights.blobs.items() if name not in replaced} | bn_blobs
    return net.relinked(merged), Weights(blobs, weights.source, weights.remarks)


def _distinct_states(net: Net) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Yield every (phase, stages, level) that the include and exclude rules of the layers may distinguish."""
    rules = [rule for layer in net.layers for rule in (*layer.params.include, *layer.params.exclude)]
    named = dict.fromkeys(stage for rule in rules for stage in (*rule.stage, *rule.not_stage))
    state = net.params.state
    stages = dict.fromkeys([tuple(state.stage), (), tuple(named), *((stage,) for stage in named)])
    levels = {rule.min_level for rule in rules if rule.has("min_level")}
    levels |= {rule.max_level for rule in rules if rule.has("max_level")}
    yield from product(PHASES, stages, sorted({state.level, 0} | levels))


def _layers_by_index(net: Net, phase: str, stages: tuple[str, ...], level: int) -> LayersByIndex:
    remaining, by_index = list(reversed(net.at(phase, stages, level).layers)), {}
    for index, layer in enumerate(net.layers):
        if remaining and remaining[-1].params is layer.params and remaining[-1].name == layer.name:
            by_index[index] = remaining.pop()
    return by_index


def _refusals(index: int, layer: Layer, states: Sequence[tuple[str, LayersByIndex]]) -> Iterator[str]:
    if layer.type != "BatchNorm":
        return
    p = layer.get(BatchNormParameter)
    by_batch = p.has("use_global_stats") and not p.use_global_stats and not p.scale_bias
    if by_batch and any(phase == "TEST" and index in layers for phase, layers in states):
        yield str(layer.error("use_global_stats: false normalises by the batch in the TEST phase; BN cannot do this"))
    if not p.add_eps_before_sqrt:
        yield str(layer.error("add_eps_before_sqrt: false adds eps to the deviation; BN adds it to the variance"))


def _scale_partners(net: Net, states: Sequence[LayersByIndex]) -> dict[int, int]:
    """Return the index of the Scale that each BatchNorm is merged with, by the index of the BatchNorm."""
    scales_by_state = [_scales_after(layers) for layers in states]
    partners: dict[int, int] = {}
    for index, layer in enumerate(net.layers):
        scales = {after.get(index) for after, layers in zip(scales_by_state, states, strict=True) if index in layers}
        if layer.type == "BatchNorm" and len(scales) == 1 and (scale := scales.pop()) is not None:
            partners[index] = scale
    for scale in set(partners.values()):
        always_merged = all(any(partners.get(i) == scale for i in layers) for layers in states if scale in layers)
        if not always_merged:
            partners = {index: other for index, other in partners.items() if other != scale}
    return _without_shared_scales(net, partners)


def _without_shared_scales(net: Net, partners: dict[int, int]) -> dict[int, int]:
    """Leave out each Scale that shares a blob with a layer that is not merged, as blobs of BN have another shape."""
    unmerged = [layer for i, layer in enumerate(net.layers) if i not in partners.values() and layer.type != "BatchNorm"]
    names = {spec.name for layer in unmerged for spec in layer.params.param if spec.name}
    kept = {i: j for i, j in partners.items() if not names & {spec.name for spec in net.layers[j].params.param}}
    return kept if len(kept) == len(partners) else _without_shared_scales(net, kept)


def _scales_after(layers: LayersByIndex) -> dict[int, int]:
    """Return, by the index of each BatchNorm, the index of the Scale that alone reads its top and can be merged."""
    uses = Counter(value for layer in layers.values() for value in layer.bottoms)
    users = {value: index for index, layer in layers.items() for value in layer.bottoms}
    return {
        index: users[layer.tops[0]]
        for index, layer in layers.items()
        if layer.type == "BatchNorm"
        and uses[layer.tops[0]] == 1
        and _is_mergeable_scale(layers, index, users[layer.tops[0]])
    }


def _is_mergeable_scale(layers: LayersByIndex, norm_index: int, scale_index: int) -> bool:
    """Return whether a layer is a Scale by channel, with no layer in between that uses a blob of the two."""
    layer, scale = layers[norm_index], layers[scale_index]
    p = scale.get(ScaleParameter)
    between = (other for index, other in layers.items() if norm_index < index < scale_index)
    used_between = {value.blob for other in between for value in (*other.bottoms, *other.tops)}
    merged_blobs = {value.blob for value in (*layer.bottoms, *layer.tops, *scale.tops)}
    is_by_channel = scale.type == "Scale" and len(scale.bottoms) == 1 and (p.axis, p.num_axes) == (1, 1)
    return is_by_channel and not used_between & merged_blobs


def _merged_layer(layer: Layer, scale: Layer | None) -> Layer:
    p = layer.get(BatchNormParameter)
    eps = max(p.eps, NVCAFFE_EPS) if p.scale_bias else p.eps
    bn = BNParameter(slope_filler={"value": 1}, momentum=p.moving_average_fraction, eps=eps)
    affine = scale.get(ScaleParameter) if scale else ScaleParameter()
    bn = bn.replace(slope_filler=affine.filler) if affine.has("filler") else bn
    bn = bn.replace(bias_filler=affine.bias_filler) if affine.has("bias_filler") else bn
    bn = bn.replace(frozen=True) if p.use_global_stats else bn
    tops = scale.tops if scale else layer.tops
    return with_parameters(layer, "BN", layer.bottoms, tops, bn, _merged_specs(layer, scale))


def _merged_specs(layer: Layer, scale: Layer | None) -> Specs:
    """Return the `param` of the four blobs of the BN. Blobs without a counterpart before the merge are not learned."""
    statistics, scale_and_bias = specs_of(layer)
    has_bias = scale is not None and scale.get(ScaleParameter).bias_term
    if has_bias and not (layer.params.param or (scale and scale.params.param)):
        return ()
    existing, count = (scale_and_bias, 2) if layer.get(BatchNormParameter).merged else ((), 0)
    if scale is not None:
        existing, count = scale.params.param, 1 + has_bias
    learned = (*existing, ParamSpec(), ParamSpec())[:count]
    return (*learned, NOT_LEARNED, NOT_LEARNED)[:2] + (*statistics, NOT_LEARNED, NOT_LEARNED)[:2]


def _merged_blobs(layer: Layer, scale: Layer | None, weights: Weights) -> Blobs:
    """Return the four blobs of the BN, each 1×C×1×1."""
    roles = weights.of(layer.name)
    mean, variance = divided_by_factor(roles)
    slope, bias = roles.get("scale", np.ones_like(mean)), roles.get("bias", np.zeros_like(mean))
    if scale is not None:
        affine = weights.of(scale.name)
        factor = affine["scale"].reshape(-1)
        slope, bias = slope.reshape(-1) * factor, bias.reshape(-1) * factor + affine.get("bias", np.zeros_like(mean))
    blobs = {"slope": slope, "bias": bias, "mean": mean, VARIANCE: variance}
    return {role: array.reshape(1, -1, 1, 1).astype("float32") for role, array in blobs.items()}
