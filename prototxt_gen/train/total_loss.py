"""The quantity that training minimises: the weighted sum of a net's losses, as one PyTorch module.

Source: src/caffe/net.cpp Net::Init, Net::ForwardFromTo; include/caffe/layer.hpp Layer::SetLossWeights, Layer::Forward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Layer, Net, Shape, Value
from prototxt_gen.net.phase_rules import METRICS
from prototxt_gen.runtime.torch_net import LayerFunction, LoweredLayer, TorchNet, run_calls
from prototxt_gen.train.backend import MAX_REPORTED_VALUES
from prototxt_gen.train.gradient_checkpointing import cut_into_segments

UNNAMED_LOSS_TOP = "(loss of %s)"
"""The top of a loss layer whose prototxt has no top. Source: include/caffe/layers/loss_layer.hpp AutoTopBlobs."""


def with_loss_tops(net: Net) -> Net:
    """Return the net with a top for every loss layer that has none."""

    def add_top(layer: Layer) -> Layer:
        lacks_top = not layer.tops and layers.layer_type_of(layer).loss
        return replace(layer, tops=(Value(UNNAMED_LOSS_TOP % layer.name),)) if lacks_top else layer

    return net.map(add_top)


def loss_terms(net: Net) -> list[tuple[Value, float]]:
    """Return the tops that count as losses, with their loss weights. Raises NetError if there are none."""
    terms = [
        (top, weight)
        for layer in net.layers
        for top, weight in zip(layer.tops, _loss_weights(layer), strict=False)
        if weight
    ]
    if not terms:
        raise NetError(f"{net.source or net.name}: it has no loss in phase TRAIN, so there is nothing to train")
    return terms


def _loss_weights(layer: Layer) -> Sequence[float]:
    weights = layer.params.loss_weight
    if weights and len(weights) != len(layer.tops):
        raise layer.error(f"it has {len(layer.tops)} tops and {len(weights)} loss_weight; it needs one for each top")
    return weights or ((1.0,) if layers.layer_type_of(layer).loss else ())


def reported_outputs(net: TorchNet) -> tuple[Value, ...]:
    """Return the net's outputs with at most MAX_REPORTED_VALUES elements, without unnamed losses, in order."""
    shapes: Mapping[Value, Shape] = net.analysis.shapes
    return tuple(
        value
        for value in net.outputs
        if math.prod(shapes[value]) <= MAX_REPORTED_VALUES and not value.blob.startswith(UNNAMED_LOSS_TOP.split("%")[0])
    )


class TotalLoss(nn.Module):
    """Maps a net's inputs to its weighted total loss (a scalar) and its reported outputs.

    mixed_precision  losses and metrics are computed in float32 although the net runs under autocast
    checkpointing    most blobs are recomputed in the backward pass, one segment of the net at a time
    """

    def __init__(self, net: TorchNet, mixed_precision: bool = False, checkpointing: bool = False) -> None:
        super().__init__()
        self.net = net
        terms = loss_terms(net.net)
        self.terms = [(net.blob_indices[value], weight) for value, weight in terms]
        self.outputs = reported_outputs(net)
        kept = {*self.outputs, *(value for value, _ in terms)}
        self.calls = net.layer_calls(kept, module_in_float32 if mixed_precision else None)
        kept_indices = {net.blob_indices[value] for value in kept}
        self.segments = cut_into_segments(net, self.calls, kept_indices) if checkpointing else []

    def forward(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        blobs = self.net.initial_blobs(inputs)
        if self.segments:
            for segment in self.segments:
                segment.run(blobs)
        else:
            run_calls(self.calls, blobs)
        loss = _sum([_weighted_sum(blobs[index], weight) for index, weight in self.terms])
        return loss, [output.detach() for output in self.net.select_blobs(blobs, self.outputs)]


def _weighted_sum(top: Tensor | None, weight: float) -> Tensor:
    assert top is not None
    top = top.float()
    return weight * (top.sum() if top.dim() else top)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def module_in_float32(lowered: LoweredLayer) -> LayerFunction:
    """Return the layer's module; for losses and metrics, a function that casts their bottoms to float32 first."""
    if not lowered.layer_type.loss and lowered.layer.type not in METRICS:
        return lowered.module

    def call(*bottoms: Tensor) -> Any:
        with torch.autocast(bottoms[0].device.type, enabled=False):
            return lowered.module(*(bottom.float() for bottom in bottoms))

    return call
