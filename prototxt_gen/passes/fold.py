"""Fold normalisation away: where a BN, BatchNorm, Scale or Bias only follows a convolution, its numbers go into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, analyse
from prototxt_gen.ir import Layer, Value
from prototxt_gen.layers.convolution import ConvolutionParameter
from prototxt_gen.layers.inner_product import InnerProductParameter
from prototxt_gen.weights import Array, Weights

_PARAMS = {
    "Convolution": ConvolutionParameter,
    "Deconvolution": ConvolutionParameter,
    "InnerProduct": InnerProductParameter,
}


def fold(analysis: Analysis, weights: Weights) -> tuple[Analysis, Weights]:
    """Return the net and weights with every foldable normalisation folded into the layer before it.

    The convolution takes over the normalisation's top; the blob between the two is gone. In the TEST phase both nets
    compute the same, up to float32 rounding.
    """
    made = dict(weights.blobs)
    kept: list[Layer] = []
    makers: dict[Value, int] = {}
    uses = Counter(value for layer in analysis.net.layers for value in layer.bottoms)
    uses.update(analysis.net.outputs)
    for layer in analysis.net.layers:
        before = makers.get(layer.bottoms[0]) if len(layer.bottoms) == 1 else None
        if before is not None and uses[layer.bottoms[0]] == 1:
            folded = _folded(kept[before], layer, made)
            if folded is not None:
                kept[before], made[folded.name] = folded, made.pop(folded.name)
                makers[layer.tops[0]] = before
                made.pop(layer.name, None)
                continue
        if layer.type in _PARAMS and len(layer.bottoms) == 1 and not _shares(layer):
            makers[layer.tops[0]] = len(kept)
        kept.append(layer)
    net = replace(analysis.net, layers=tuple(kept))
    given = {value.blob: shape for value, shape in analysis.shapes.items() if _is_source(analysis, value)}
    return analyse(net, given), Weights(made, weights.source, weights.remarks)


def _is_source(analysis: Analysis, value: Value) -> bool:
    data = {v for row in analysis.rows if (room := layers.find(row.layer.type)) and room.data for v in row.layer.tops}
    return value in data or value in analysis.net.inputs


def _shares(layer: Layer) -> bool:
    return any(spec.name for spec in layer.params.param)


def _folded(conv: Layer, layer: Layer, made: dict[str, Mapping[str, Array]]) -> Layer | None:
    """Return the convolution with the layer's numbers in it and its top, or None where the two do not fold."""
    affine = layers.room(layer).affine(layer, made.get(layer.name, {}))
    if affine is None or conv.name not in made or _shares(layer):
        return None
    scale, shift = (part.astype("float64") for part in affine)
    own = conv.get(_PARAMS[conv.type])
    blobs = made[conv.name]
    weight = _scaled(conv, blobs["weight"].astype("float64"), scale)
    bias = blobs["bias"].astype("float64") * scale + shift if "bias" in blobs else shift
    made[conv.name] = {"weight": weight.astype("float32"), "bias": bias.astype("float32")}
    params = conv.params.replace(**{own.field: own.replace(bias_term=None)})
    return replace(conv, params=params, tops=layer.tops)


def _scaled(conv: Layer, weight: Array, scale: Array) -> Array:
    """Multiply each output channel's weights. Deconvolution has I×(O/group), a transposed InnerProduct K×O."""
    if conv.type == "Deconvolution":
        group = conv.get(ConvolutionParameter).group
        grouped = weight.reshape(group, -1, *weight.shape[1:])
        per_group = scale.reshape(group, 1, -1, *[1] * (weight.ndim - 2))
        return np.asarray((grouped * per_group).reshape(weight.shape))
    if conv.type == "InnerProduct" and conv.get(InnerProductParameter).transpose:
        return np.asarray(weight * scale)
    return np.asarray(weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
