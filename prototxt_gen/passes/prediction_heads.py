"""The heads of a train_val: what each loss and metric predicts, from which label, and which heads are auxiliary."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from prototxt_gen import layers
from prototxt_gen.ir import Layer, Net, Value
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.utility.python import PythonParameter
from prototxt_gen.net.lowering_checks import is_input_layer
from prototxt_gen.net.phase_rules import METRICS, is_loss_type, is_source_layer

_PREDICTION_COUNTS = {
    **dict.fromkeys(
        ("Accuracy", "CenterLoss", "DetectionEvaluate", "HingeLoss", "InfogainLoss", "MultinomialLogisticLoss"), 1
    ),
    **dict.fromkeys(("RegionLoss", "SigmoidCrossEntropyLoss", "SmoothL1LossOHEM"), 1),
    **dict.fromkeys(("SoftmaxWithLoss", "SoftmaxWithLossOHEM", "MarginInnerProduct"), 1),
    "ContrastiveLoss": 2,
    "MultiBoxLoss": 3,
}
"""Number of first bottoms that are predictions; the others are labels, weights or masks. Any order is possible in other
types, such as EuclideanLoss: there the predictions are the bottoms that depend on learned layers."""
_LABEL_RESIZING_TYPES = frozenset(
    {
        *("Crop", "Flatten", "Interp", "Permute", "Pooling", "Reshape", "Resize", "ResizeBilinear"),
        *("ResizeNearestNeighbor", "Split", "Squeeze"),
    }
)
"""Types that give another size of the same label: losses at several scales have one label."""
_METRIC_WORDS = ("accuracy", "metric", "evaluat", "measure")


@dataclass(frozen=True)
class Head:
    """A loss or metric, with the values that it compares (`predictions`) and the blob that it compares them with.

    `label` is "" if the layer has no label. `weight` is the loss weight; a metric has 0.
    """

    layer: Layer
    predictions: tuple[Value, ...]
    label: str
    weight: float = 0.0
    is_metric: bool = False

    def __str__(self) -> str:
        return f"{self.layer.name!r} ({self.layer.type}, loss_weight {self.weight:g})"


def is_data_layer(layer: Layer) -> bool:
    """Return whether the layer loads data from outside the net; layers of constants, such as DummyData, do not."""
    layer_type = layers.find_layer_type(layer.type)
    return is_input_layer(layer) if layer_type is not None and layer_type.data else is_source_layer(layer)


def is_loss_layer(layer: Layer) -> bool:
    """Return whether the layer computes a loss: by its type, its Python class, or the loss_weight of an unknown type.

    MarginInnerProduct, which computes the scores of a loss from features and labels, counts too.
    """
    if is_loss_type(layer) or "Loss" in layer.type or layer.type == "MarginInnerProduct":
        return True
    if layer.type != "Python":
        return layers.find_layer_type(layer.type) is None and any(layer.params.loss_weight)
    return any(layer.params.loss_weight) or "loss" in layer.get(PythonParameter).layer.lower()


def is_metric_layer(layer: Layer) -> bool:
    """Return whether the layer measures, writes or discards its bottoms: by its type or its Python class."""
    name = layer.get(PythonParameter).layer if layer.type == "Python" else layer.type
    return layer.type in METRICS or any(word in name.lower() for word in _METRIC_WORDS)


def makes_targets(layer: Layer) -> bool:
    """Return whether the layer makes the targets of a loss, though it may read predictions (AnchorTargetLayer)."""
    name = layer.get(PythonParameter).layer if layer.type == "Python" else layer.type
    return "target" in name.lower() or layer.type == "BoxAnnotatorOHEM"


def has_learned_blobs(layer: Layer) -> bool:
    """Return whether layers of this type have learned blobs; of an unknown type, those with a `param` have."""
    layer_type = layers.find_layer_type(layer.type)
    if layer_type is None or layer.type == "Python":
        return bool(layer.params.param)
    return type(layer_type).blobs is not LayerType.blobs


def values_from(net: Net, values: Iterable[Value], start: Callable[[Layer], bool] = lambda layer: False) -> set[Value]:
    """Return these values, and all that are computed from them or by a layer that `start` accepts."""
    reached = set(values)
    for layer in net.layers:
        if start(layer) or not reached.isdisjoint(layer.bottoms):
            reached.update(layer.tops)
    return reached


def learned_values(net: Net) -> set[Value]:
    """Return the values that depend on a learned layer, without losses and the targets of losses."""
    learned: set[Value] = set()
    for layer in net.layers:
        if is_loss_layer(layer) or makes_targets(layer):
            continue
        if has_learned_blobs(layer) or not learned.isdisjoint(layer.bottoms):
            learned.update(layer.tops)
    return learned


def training_only_sources(net: Net) -> set[Value]:
    """Return the inputs and tops of data layers on which no learned layer depends: labels, targets, masks of losses."""
    needed: set[Value] = set()
    for layer in reversed(net.layers):
        if is_loss_layer(layer) or makes_targets(layer):
            continue
        if has_learned_blobs(layer) or not needed.isdisjoint(layer.tops):
            needed.update(layer.bottoms)
    sources = {top for layer in net.layers if is_data_layer(layer) for top in layer.tops} | set(net.inputs)
    return sources - needed


def heads_of(net: Net) -> list[Head]:
    """Return the losses and metrics of a net of one phase, in order. A plain layer with a loss_weight is a loss too."""
    learned, labels = learned_values(net), training_only_sources(net)
    from_labels = values_from(net, labels)
    outputs = set(net.outputs)
    filtered = _values_before_label_filters(net, learned, from_labels)
    heads = []
    for layer in net.layers:
        if layer.type == "Silence" or not layer.bottoms:
            continue
        if is_loss_layer(layer):
            head = _head(net, layer, _predictions(layer, learned), _weight(layer))
            heads.append(replace(head, predictions=tuple(filtered.get(value, value) for value in head.predictions)))
        elif is_metric_layer(layer) or _is_unknown_metric(layer, learned, from_labels, outputs):
            head = _head(net, layer, _predictions(layer, learned), 0.0, is_metric=True)
            heads.append(replace(head, predictions=tuple(filtered.get(value, value) for value in head.predictions)))
        elif any(layer.params.loss_weight):
            predictions = _before_labels(net, layer, from_labels, learned)
            heads.append(Head(layer, predictions, "", _weight(layer)))
    from_losses = values_from(net, (), is_loss_layer)
    return [head for head in heads if head.predictions and from_losses.isdisjoint(head.predictions)]


def _head(net: Net, layer: Layer, predictions: tuple[Value, ...], weight: float, is_metric: bool = False) -> Head:
    label = next((value for value in layer.bottoms if value not in predictions), None)
    return Head(layer, predictions, "" if label is None else _original_label(net, label), weight, is_metric)


def _weight(layer: Layer) -> float:
    return max(layer.params.loss_weight, default=1.0)


def _predictions(layer: Layer, learned: Collection[Value]) -> tuple[Value, ...]:
    count = _PREDICTION_COUNTS.get(layer.type, 1 if layer.type == "SmoothL1Loss" and len(layer.bottoms) > 2 else 0)
    if count:
        return layer.bottoms[:count]
    found = tuple(dict.fromkeys(value for value in layer.bottoms if value in learned))
    return found or layer.bottoms[:1]


def _is_unknown_metric(
    layer: Layer, learned: Collection[Value], from_labels: Collection[Value], outputs: Collection[Value]
) -> bool:
    """Return whether a layer of unknown computation at the end of the net compares a prediction with a label."""
    if layer.type != "Python" and layers.find_layer_type(layer.type) is not None:
        return False
    labels = [value for value in layer.bottoms if value in from_labels and value not in learned]
    return bool(labels) and any(v in learned for v in layer.bottoms) and all(top in outputs for top in layer.tops)


def _values_before_label_filters(
    net: Net, learned: Collection[Value], from_labels: Collection[Value]
) -> dict[Value, Value]:
    """Return, for each top of a layer that only chooses by label what a loss counts, the value that it chooses from.

    Such a layer is a Python layer or of unknown type, and has one prediction and one label or more as bottoms. MTCNN's
    training nets have one, which drops the items without a class.
    """
    found: dict[Value, Value] = {}
    for layer in net.layers:
        if is_loss_layer(layer) or (layer.type != "Python" and layers.find_layer_type(layer.type) is not None):
            continue
        predictions = [value for value in layer.bottoms if value in learned]
        labels = [value for value in layer.bottoms if value in from_labels and value not in learned]
        if len(predictions) == 1 and labels and layer.tops:
            found[layer.tops[0]] = found.get(predictions[0], predictions[0])
    return found


def _before_labels(
    net: Net, loss: Layer, from_labels: Collection[Value], learned: Collection[Value]
) -> tuple[Value, ...]:
    """Return what a loss written with plain layers predicts: the last learned values before a label comes in.

    If no label comes in, the loss itself is a result of the net.
    """
    if not any(value in from_labels for value in loss.bottoms):
        return loss.tops
    found, pending = [], set(loss.bottoms)
    for layer in reversed(net.layers):
        if pending.isdisjoint(layer.tops):
            continue
        for top in pending.intersection(layer.tops):
            if top in learned and top not in from_labels:
                found.append(top)
            elif top in from_labels:
                pending.update(layer.bottoms)
    return tuple(dict.fromkeys(reversed(found)))


def _original_label(net: Net, label: Value) -> str:
    """Return the blob of a label before layers that only change its size."""
    for layer in reversed(net.layers):
        if label in layer.tops and layer.type in _LABEL_RESIZING_TYPES and layer.bottoms:
            label = layer.bottoms[0]
    return label.blob


def prediction_heads(test: Net, other: Net) -> list[Head]:
    """Return the heads of a phase, and the losses of the other phase whose predictions exist in this one."""
    heads = heads_of(test)
    present = {(head.layer.name, head.layer.type) for head in heads}
    last = {value.blob: value for value in test.values()}
    for head in heads_of(other):
        blobs = [value.blob for value in head.predictions]
        if head.is_metric or (head.layer.name, head.layer.type) in present or not blobs:
            continue
        if all(blob in last for blob in blobs) and not set(head.layer.tops) & set(head.predictions):
            predictions = tuple(last[blob] for blob in blobs)
            heads.append(Head(head.layer, predictions, head.label, head.weight))
    return heads


def auxiliary_heads(net: Net, heads: Collection[Head]) -> dict[Head, Head]:
    """Return each auxiliary head with its main head.

    A loss is auxiliary if another loss of the same type has the same label and a greater loss_weight, and does not
    predict what it refines. Examples are the two classifiers of GoogLeNet at half depth.
    """
    found: dict[Head, Head] = {}
    for head in heads:
        rivals = [main for main in heads if _is_main_of(net, main, head)]
        if rivals:
            found[head] = max(rivals, key=lambda main: main.weight)
    return found


def _is_main_of(net: Net, main: Head, head: Head) -> bool:
    same_task = not (main.is_metric or head.is_metric) and head.label and main.label == head.label
    if not same_task or main.layer.type != head.layer.type or main.weight <= head.weight:
        return False
    return values_from(net, main.predictions).isdisjoint(head.predictions)
