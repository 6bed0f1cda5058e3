"""What goes wrong in a step on PyTorch, in one sentence that names the layer: labels that are no class, and others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.axes import canonical
from prototxt_gen.layers.loss.accuracy import AccuracyParameter
from prototxt_gen.layers.loss.infogain_loss import InfogainLossParameter
from prototxt_gen.layers.utility.softmax import SoftmaxParameter
from prototxt_gen.runtime.torch_net import TorchNet
from prototxt_gen.schema.caffe_proto import LossParameter

Array = np.ndarray[Any, Any]
_AXES: dict[str, Any] = {
    "SoftmaxWithLoss": SoftmaxParameter,
    "InfogainLoss": InfogainLossParameter,
    "Accuracy": AccuracyParameter,
}
"""Types whose second bottom holds classes, with the message that says on which axis of the first they are."""
_ONE_EACH = ("MultinomialLogisticLoss", "HingeLoss")
"""Types with one label for each sample; all other axes are classes."""


@dataclass(frozen=True)
class Labels:
    """The labels that one layer takes from a blob that is fed: from 0 to below `classes`, or `ignored`."""

    layer: Layer
    blob: str
    classes: int
    ignored: int | None = None

    def check(self, arrays: Mapping[str, Array]) -> None:
        """Raise NetError for a label that is no class; a Caffe without its debug checks reads past the blob."""
        labels = arrays[self.blob].astype(np.int64)
        wrong = labels[(labels < 0) | (labels >= self.classes)]
        if self.ignored is not None:
            wrong = wrong[wrong != self.ignored]
        if wrong.size:
            classes, scores = self.classes, self.layer.bottoms[0].blob
            raise self.layer.error(
                f"label {wrong[0]} of its bottom {self.blob!r} is no class: its bottom {scores!r} has "
                f"{classes}, 0 to {classes - 1}"
            )


def labels_of(net: TorchNet) -> list[Labels]:
    """Return what is to hold of a net's inputs before a batch of them is computed."""
    return [
        Labels(layer, layer.bottoms[1].blob, _classes(layer, net.analysis.shapes[layer.bottoms[0]]), _ignored(layer))
        for layer in net.net.layers
        if (layer.type in _AXES or layer.type in _ONE_EACH) and layer.bottoms[1] in net.inputs
    ]


def checked(labels: Sequence[Labels], arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return the content of a net's inputs; NetError where a label is no class."""
    for rule in labels:
        rule.check(arrays)
    return arrays


def _classes(layer: Layer, scores: Shape) -> int:
    if layer.type in _ONE_EACH:
        return math.prod(scores[1:])
    return scores[canonical(layer, layer.get(_AXES[layer.type]).axis, scores)]


def _ignored(layer: Layer) -> int | None:
    if layer.type in _ONE_EACH:
        return None
    own: Any = layer.get(AccuracyParameter if layer.type == "Accuracy" else LossParameter)
    return int(own.ignore_label) if own.has("ignore_label") else None


@contextmanager
def told(net: TorchNet) -> Iterator[None]:
    """Turn what PyTorch raises while a net computes into a NetError that names the layer, where one is to blame."""
    try:
        yield
    except (RuntimeError, IndexError, MemoryError) as error:
        layer = _blamed(error, net)
        who = f"layer {layer.name!r} ({layer.type})" if layer else net.net.source or net.net.name
        raise NetError(f"{who}: {_words(error)}") from error


def _words(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in text:
        return f"the memory is out; a smaller batch_size with iter_size, or --memory-efficient, takes less ({text})"
    return f"PyTorch: {text}"


def _blamed(error: BaseException, net: TorchNet) -> Layer | None:
    """Return the layer in whose module the error was raised; None where that was elsewhere, as in a backward pass."""
    layers = {id(step.module): step.layer for step in net.steps}
    trace, found = error.__traceback__, None
    while trace is not None:
        found = layers.get(id(trace.tb_frame.f_locals.get("self")), found)
        trace = trace.tb_next
    return found
