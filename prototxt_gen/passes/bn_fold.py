"""Fold normalisation away: where a BN, BatchNorm, Scale or Bias only follows a convolution, its numbers go into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, analyse
from prototxt_gen.ir import Layer, Value
from prototxt_gen.layers.common.inner_product import InnerProductParameter
from prototxt_gen.layers.vision._convolution_window import ConvolutionParameter
from prototxt_gen.weights import Array, Weights

_DEPTHWISE = ("ConvolutionDepthwise", "DepthwiseConvolution", "ConvolutionDepthWise")
_PARAMS = {
    **dict.fromkeys(("Convolution", *_DEPTHWISE), ConvolutionParameter),
    "Deconvolution": ConvolutionParameter,
    "InnerProduct": InnerProductParameter,
}


def fold(analysis: Analysis, weights: Weights) -> tuple[Analysis, Weights]:
    """Return the net and weights with every foldable normalisation folded into the layer before it.

    The convolution takes over the normalisation's top; the blob between the two is gone. In the TEST phase both nets
    compute the same, up to float32 rounding.
    """
    folder = _Folder(analysis, weights)
    for layer in analysis.net.layers:
        folder.take(layer)
    net = replace(analysis.net, layers=tuple(folder.kept))
    given = {value.blob: shape for value, shape in analysis.shapes.items() if _is_source(analysis, value)}
    return analyse(net, given), Weights(folder.made, weights.source, weights.remarks)


class _Folder:
    """Takes the layers in order; `makers` tells which layer kept so far makes a blob that may still be scaled."""

    def __init__(self, analysis: Analysis, weights: Weights) -> None:
        self.made = dict(weights.blobs)
        self.kept: list[Layer] = []
        self.makers: dict[Value, int] = {}
        self.uses = Counter(value for layer in analysis.net.layers for value in layer.bottoms)
        self.uses.update(analysis.net.outputs)
        self.names = Counter(layer.name for layer in analysis.net.layers)

    def take(self, layer: Layer) -> None:
        before = self.makers.get(layer.bottoms[0]) if len(layer.bottoms) == 1 else None
        if before is not None and self.uses[layer.bottoms[0]] == 1 and self._own(layer):
            folded = _folded(self.kept[before], layer, self.made)
            if folded is not None:
                self.kept[before] = folded
                self.makers[layer.tops[0]] = before
                self.made.pop(layer.name, None)
                return
        if _scalable(layer) and self._own(layer):
            self.makers[layer.tops[0]] = len(self.kept)
        self.kept.append(layer)

    def _own(self, layer: Layer) -> bool:
        """Whether the layer's blobs are its own alone: shared by neither a parameter's name nor the layer's."""
        return self.names[layer.name] == 1 and not any(spec.name for spec in layer.params.param)


def _is_source(analysis: Analysis, value: Value) -> bool:
    data = {
        v
        for row in analysis.rows
        if (layer_type := layers.find_layer_type(row.layer.type)) and layer_type.data
        for v in row.layer.tops
    }
    return value in data or value in analysis.net.inputs


def _scalable(layer: Layer) -> bool:
    """Whether the layer's weights make axis 1 of its only top, the axis that normalisation scales."""
    if layer.type not in _PARAMS or len(layer.bottoms) != 1:
        return False
    return layer.get(ConvolutionParameter).axis == 1 and layer.get(InnerProductParameter).axis == 1


def _folded(conv: Layer, layer: Layer, made: dict[str, Mapping[str, Array]]) -> Layer | None:
    """Return the convolution with the layer's numbers in it and its top, or None where the two do not fold."""
    with np.errstate(all="ignore"):  # what is not finite stays unfolded
        affine = layers.layer_type_of(layer).affine(layer, made.get(layer.name, {}))
    if affine is None or "weight" not in made.get(conv.name, {}):
        return None
    scale, shift = (part.astype("float64") for part in affine)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    blobs = made[conv.name]
    bias = blobs["bias"].astype("float64") * scale + shift if "bias" in blobs else shift
    made[conv.name] = {"weight": _scaled(conv, blobs["weight"], scale), "bias": bias.astype("float32")}
    own = conv.get(_PARAMS[conv.type])
    params = conv.params.replace(**{own.field: own.replace(bias_term=None)})
    return replace(conv, params=params, tops=layer.tops)


def _scaled(conv: Layer, weight: Array, scale: Array) -> Array:
    """Multiply each output channel's weights. Deconvolution has I×(O/group), a transposed InnerProduct K×O."""
    if conv.type == "Deconvolution":
        group = conv.get(ConvolutionParameter).group
        grouped = weight.reshape(group, -1, *weight.shape[1:])
        per_group = scale.reshape(group, 1, -1, *[1] * (weight.ndim - 2))
        made: Array = _product(grouped, per_group).reshape(weight.shape)
        return made
    if conv.type == "InnerProduct" and conv.get(InnerProductParameter).transpose:
        return _product(weight, scale)
    return _product(weight, scale.reshape(-1, *[1] * (weight.ndim - 1)))


def _product(weight: Array, scale: Array) -> Array:
    """Multiply in float64, rounded to float32 as it goes: no copy of the weights in double."""
    made: Array = np.empty(weight.shape, "float32")
    np.multiply(weight, scale, out=made, casting="same_kind")
    return made
