"""Errors of a training or test step in PyTorch as one sentence that names the layer, and checks of class labels."""

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
from prototxt_gen.layers.axes import canonical_axis
from prototxt_gen.layers.loss.accuracy import AccuracyParameter
from prototxt_gen.layers.loss.infogain_loss import InfogainLossParameter
from prototxt_gen.layers.utility.softmax import SoftmaxParameter
from prototxt_gen.runtime.torch_net import TorchNet
from prototxt_gen.schema.caffe_proto import LossParameter

Array = np.ndarray[Any, Any]
_CLASS_AXIS_MESSAGES: dict[str, Any] = {
    "SoftmaxWithLoss": SoftmaxParameter,
    "InfogainLoss": InfogainLossParameter,
    "Accuracy": AccuracyParameter,
}
"""Types whose second bottom holds labels, with the message whose `axis` is the class axis of the first bottom."""
_ONE_LABEL_PER_SAMPLE = ("MultinomialLogisticLoss", "HingeLoss")
"""Types with one label for each sample, where all axes but the first are classes."""


@dataclass(frozen=True)
class LabelRange:
    """The valid labels of one layer's label bottom: 0 to `classes` - 1, and `ignored` (ignore_label) if it has one."""

    layer: Layer
    blob: str
    classes: int
    ignored: int | None = None

    def check(self, arrays: Mapping[str, Array]) -> None:
        """Raise NetError for a label out of range. (Caffe without debug checks would read beyond the blob.)"""
        labels = arrays[self.blob].astype(np.int64)
        invalid = labels[(labels < 0) | (labels >= self.classes)]
        if self.ignored is not None:
            invalid = invalid[invalid != self.ignored]
        if invalid.size:
            classes, scores = self.classes, self.layer.bottoms[0].blob
            raise self.layer.error(
                f"label {invalid[0]} of its bottom {self.blob!r} is no class: its bottom {scores!r} has "
                f"{classes}, 0 to {classes - 1}"
            )


def label_ranges(net: TorchNet) -> list[LabelRange]:
    """Return the valid labels of every layer that takes its labels directly from a net input."""
    shapes = net.analysis.shapes
    return [
        LabelRange(layer, layer.bottoms[1].blob, _classes(layer, shapes[layer.bottoms[0]]), _ignored_label(layer))
        for layer in net.net.layers
        if (layer.type in _CLASS_AXIS_MESSAGES or layer.type in _ONE_LABEL_PER_SAMPLE)
        and layer.bottoms[1] in net.inputs
    ]


def check_labels(ranges: Sequence[LabelRange], arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return the input arrays unchanged. Raises NetError if a label is out of range."""
    for label_range in ranges:
        label_range.check(arrays)
    return arrays


def _classes(layer: Layer, scores: Shape) -> int:
    if layer.type in _ONE_LABEL_PER_SAMPLE:
        return math.prod(scores[1:])
    return scores[canonical_axis(layer, layer.get(_CLASS_AXIS_MESSAGES[layer.type]).axis, scores)]


def _ignored_label(layer: Layer) -> int | None:
    if layer.type in _ONE_LABEL_PER_SAMPLE:
        return None
    params: Any = layer.get(AccuracyParameter if layer.type == "Accuracy" else LossParameter)
    return int(params.ignore_label) if params.has("ignore_label") else None


@contextmanager
def naming_failed_layer(net: TorchNet) -> Iterator[None]:
    """Turn exceptions that PyTorch raises in the block into a NetError that names the layer that failed, if known."""
    try:
        yield
    except (RuntimeError, IndexError, MemoryError) as error:
        layer = _failed_layer(error, net)
        subject = f"layer {layer.name!r} ({layer.type})" if layer else net.net.source or net.net.name
        raise NetError(f"{subject}: {_message(error)}") from error


def _message(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in text:
        return f"out of memory; a smaller batch_size with iter_size, or --memory-efficient, takes less ({text})"
    return f"PyTorch: {text}"


def _failed_layer(error: BaseException, net: TorchNet) -> Layer | None:
    """Return the layer whose module raised the error, found in the traceback; None if it was elsewhere.

    For example, a backward pass has no module in its traceback.
    """
    layers = {id(lowered.module): lowered.layer for lowered in net.lowered_layers}
    trace, layer = error.__traceback__, None
    while trace is not None:
        layer = layers.get(id(trace.tb_frame.f_locals.get("self")), layer)
        trace = trace.tb_next
    return layer
