"""Folding of normalisation: a BN, BatchNorm, Scale or Bias behind a convolution becomes part of the convolution."""

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
_PARAMETER_CLASSES = {
    **dict.fromkeys(("Convolution", *_DEPTHWISE), ConvolutionParameter),
    "Deconvolution": ConvolutionParameter,
    "InnerProduct": InnerProductParameter,
}


def fold_normalisation(analysis: Analysis, weights: Weights) -> tuple[Analysis, Weights]:
    """Return net and weights with each foldable normalisation folded into the convolution or InnerProduct before it.

    The convolution then writes the top of the normalisation; the blob between the two no longer exists. In the TEST
    phase both nets compute the same, up to float32 rounding.
    """
    folder = _Folder(analysis, weights)
    for layer in analysis.net.layers:
        folder.add(layer)
    net = replace(analysis.net, layers=tuple(folder.layers))
    inputs = _input_values(analysis)
    input_shapes = {value.blob: shape for value, shape in analysis.shapes.items() if value in inputs}
    return analyse(net, input_shapes), Weights(folder.blobs, weights.source, weights.remarks)


class _Folder:
    """Collects the layers of the folded net, in order, with their blobs.

    `foldable` maps a value to the index of the layer in `layers` that writes it and that can absorb a normalisation.
    """

    def __init__(self, analysis: Analysis, weights: Weights) -> None:
        self.blobs = dict(weights.blobs)
        self.layers: list[Layer] = []
        self.foldable: dict[Value, int] = {}
        self.uses = Counter(value for layer in analysis.net.layers for value in layer.bottoms)
        self.uses.update(analysis.net.outputs)
        self.names = Counter(layer.name for layer in analysis.net.layers)

    def add(self, layer: Layer) -> None:
        """Add the layer, or fold it into the layer that writes its bottom."""
        index = self.foldable.get(layer.bottoms[0]) if len(layer.bottoms) == 1 else None
        if index is not None and self.uses[layer.bottoms[0]] == 1 and self._has_unshared_blobs(layer):
            folded = _folded(self.layers[index], layer, self.blobs)
            if folded is not None:
                self.layers[index] = folded
                self.foldable[layer.tops[0]] = index
                self.blobs.pop(layer.name, None)
                return
        if _accepts_normalisation(layer) and self._has_unshared_blobs(layer):
            self.foldable[layer.tops[0]] = len(self.layers)
        self.layers.append(layer)

    def _has_unshared_blobs(self, layer: Layer) -> bool:
        """Return whether no other layer shares the learned blobs, neither by the name of a `param` nor of the layer."""
        return self.names[layer.name] == 1 and not any(spec.name for spec in layer.params.param)


def _input_values(analysis: Analysis) -> set[Value]:
    """Return the inputs of the net and the tops of its data layers."""
    data_tops = {
        value
        for row in analysis.rows
        if (layer_type := layers.find_layer_type(row.layer.type)) and layer_type.data
        for value in row.layer.tops
    }
    return data_tops | set(analysis.net.inputs)


def _accepts_normalisation(layer: Layer) -> bool:
    """Return whether the layer is a convolution or InnerProduct whose output channels are axis 1, as normalised."""
    if layer.type not in _PARAMETER_CLASSES or len(layer.bottoms) != 1:
        return False
    return layer.get(ConvolutionParameter).axis == 1 and layer.get(InnerProductParameter).axis == 1


def _folded(conv: Layer, normalisation: Layer, blobs: dict[str, Mapping[str, Array]]) -> Layer | None:
    """Return the convolution with the top of the normalisation, and update `blobs`; None if they cannot be folded."""
    with np.errstate(all="ignore"):  # factors that are not finite are refused below
        affine = layers.layer_type_of(normalisation).affine(normalisation, blobs.get(normalisation.name, {}))
    if affine is None or "weight" not in blobs.get(conv.name, {}):
        return None
    scale, shift = (part.astype("float64") for part in affine)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    old = blobs[conv.name]
    bias = old["bias"].astype("float64") * scale + shift if "bias" in old else shift
    blobs[conv.name] = {"weight": _scaled(conv, old["weight"], scale), "bias": bias.astype("float32")}
    conv_params = conv.get(_PARAMETER_CLASSES[conv.type])
    params = conv.params.replace(**{conv_params.field: conv_params.replace(bias_term=None)})
    return replace(conv, params=params, tops=normalisation.tops)


def _scaled(conv: Layer, weight: Array, scale: Array) -> Array:
    """Return the weights with each output channel multiplied by its scale.

    Weights are O×…, except I×(O/group)×… of a Deconvolution, and K×O of a transposed InnerProduct.
    """
    if conv.type == "Deconvolution":
        group = conv.get(ConvolutionParameter).group
        grouped = weight.reshape(group, -1, *weight.shape[1:])
        per_group = scale.reshape(group, 1, -1, *[1] * (weight.ndim - 2))
        scaled: Array = _product(grouped, per_group).reshape(weight.shape)
        return scaled
    if conv.type == "InnerProduct" and conv.get(InnerProductParameter).transpose:
        return _product(weight, scale)
    return _product(weight, scale.reshape(-1, *[1] * (weight.ndim - 1)))


def _product(weight: Array, scale: Array) -> Array:
    """Multiply in float64 and round to float32, without a copy of the weights in float64."""
    product: Array = np.empty(weight.shape, "float32")
    np.multiply(weight, scale, out=product, casting="same_kind")
    return product
