"""What training makes small: the weighted sum of a net's losses, as one module.

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
from prototxt_gen.runtime.torch_net import Call, Step, TorchNet, work
from prototxt_gen.train.backend import MOST_NUMBERS
from prototxt_gen.train.gradient_checkpointing import segments

UNNAMED = "(loss of %s)"
"""The top of a loss whose prototxt names none. Source: include/caffe/layers/loss_layer.hpp AutoTopBlobs."""


def with_loss_tops(net: Net) -> Net:
    """Return the net with a top for every loss that was written without one."""

    def change(layer: Layer) -> Layer:
        bare = not layer.tops and layers.layer_type_of(layer).loss
        return replace(layer, tops=(Value(UNNAMED % layer.name),)) if bare else layer

    return net.map(change)


def loss_terms(net: Net) -> list[tuple[Value, float]]:
    """Return the blobs that are made small, with their weights; NetError where there are none."""
    terms = [
        (top, weight)
        for layer in net.layers
        for top, weight in zip(layer.tops, _weights(layer), strict=False)
        if weight
    ]
    if not terms:
        raise NetError(f"{net.source or net.name}: it has no loss in phase TRAIN, so there is nothing to train")
    return terms


def _weights(layer: Layer) -> Sequence[float]:
    given = layer.params.loss_weight
    if given and len(given) != len(layer.tops):
        raise layer.error(f"it has {len(layer.tops)} tops and {len(given)} loss_weight; it needs one for each top")
    return given or ((1.0,) if layers.layer_type_of(layer).loss else ())


def scores(net: TorchNet) -> tuple[Value, ...]:
    """Return the outputs that are few enough numbers to be told, in order."""
    shapes: Mapping[Value, Shape] = net.analysis.shapes
    return tuple(
        value
        for value in net.outputs
        if math.prod(shapes[value]) <= MOST_NUMBERS and not value.blob.startswith(UNNAMED.split("%")[0])
    )


class Objective(nn.Module):
    """Takes a net's inputs, gives the loss and the scores. `mixed`: losses and metrics stay in float32 under autocast.

    `sparing`: most blobs are not kept for the gradient but computed again, a segment of the net at a time.
    """

    def __init__(self, net: TorchNet, mixed: bool = False, sparing: bool = False) -> None:
        super().__init__()
        self.net = net
        self.terms = [(net.numbers[value], weight) for value, weight in loss_terms(net.net)]
        self.scores = scores(net)
        wanted = {*self.scores, *(value for value, _ in loss_terms(net.net))}
        self.tasks = net.tasks(wanted, in_float32 if mixed else None)
        self.segments = segments(net, self.tasks, {net.numbers[value] for value in wanted}) if sparing else []

    def forward(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        blobs = self.net.begin(inputs)
        if self.segments:
            for segment in self.segments:
                segment.work(blobs)
        else:
            work(self.tasks, blobs)
        loss = _sum([_term(blobs[number], weight) for number, weight in self.terms])
        return loss, [score.detach() for score in self.net.found(blobs, self.scores)]


def _term(top: Tensor | None, weight: float) -> Tensor:
    assert top is not None
    top = top.float()
    return weight * (top.sum() if top.dim() else top)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def in_float32(step: Step) -> Call:
    """Return the step's module, and for losses and metrics one that casts its bottoms."""
    if not step.layer_type.loss and step.layer.type not in METRICS:
        return step.module

    def call(*bottoms: Tensor) -> Any:
        with torch.autocast(bottoms[0].device.type, enabled=False):
            return step.module(*(bottom.float() for bottom in bottoms))

    return call
