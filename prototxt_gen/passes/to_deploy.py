"""Train_val net to deploy net: data layers become inputs, SoftmaxWithLoss becomes Softmax, accuracies are removed."""

from __future__ import annotations

from collections.abc import Mapping

from prototxt_gen import layers
from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Layer, Net, Shape, Value
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter
from prototxt_gen.net.lowering_checks import is_input_layer
from prototxt_gen.net.phase_rules import METRICS, is_loss_type, is_source_layer
from prototxt_gen.schema.caffe_proto import LayerParameter
from prototxt_gen.schema.message import Message

_LOSS_OUTPUTS = {
    "SoftmaxWithLoss": ("Softmax", "softmax_param"),
    "SigmoidCrossEntropyLoss": ("Sigmoid", "sigmoid_param"),
    "MultinomialLogisticLoss": None,
}
"""Loss types with the layer type that computes their output in a deploy net, and the parameter field of that type."""
_FILLERS = ("weight_filler", "bias_filler", "slope_filler", "filler")
_TRAINING_FIELDS = {"include", "exclude", "phase", "param", "loss_weight", "propagate_down"}


def to_deploy(net: Net, input_shapes: Mapping[str, Shape] | None = None) -> Net:
    """Return the deploy net of a train_val, with batch size 1 and Softmax instead of SoftmaxWithLoss.

    `input_shapes` gives shapes N×C×H×W of the tops of data layers. Raises NetError if a needed shape is unknown. Of
    several losses only those with the greatest loss_weight are kept, so that auxiliary classifiers are removed.
    """
    test = net.at("TEST")
    losses = _main_losses(test, net.at("TRAIN"))
    labels = _label_blobs(test)
    kept = [layer for layer in test.layers if not _is_data(layer) and not _is_loss_metric_or_label(layer, labels)]
    kept = _without_dead_ends(kept, losses, test)
    outputs = [output for layer in losses if (output := _output_layer(layer)) is not None]
    empty = Net(net.name, (), (), net.params.replace(state=None), net.source)
    body = empty.relinked([_without_training_fields(layer) for layer in [*kept, *_with_unique_names(outputs, kept)]])
    used = {value.blob for layer in body.layers for value in layer.bottoms if value.version < 0}
    inputs = tuple(
        Value(blob, 0, shape) for blob, shape in _deploy_input_shapes(test, input_shapes or {}).items() if blob in used
    )
    return Net(net.name, inputs, (), empty.params, net.source).relinked(body.layers)


def _is_data(layer: Layer) -> bool:
    """Return whether the layer loads data from outside the net; layers of constants, such as DummyData, do not."""
    layer_type = layers.find_layer_type(layer.type)
    return is_input_layer(layer) if layer_type is not None and layer_type.data else is_source_layer(layer)


def _is_loss_metric_or_label(layer: Layer, labels: set[str]) -> bool:
    """Return whether the layer is a loss or a metric, or reads only labels."""
    only_labels = bool(layer.bottoms) and all(value.blob in labels for value in layer.bottoms)
    return is_loss_type(layer) or layer.type in METRICS or only_labels


def _main_losses(test: Net, train: Net) -> list[Layer]:
    """Return the losses with the greatest loss_weight, of the TEST phase or else of the TRAIN phase."""
    test_blobs = {value.blob for value in test.values()}
    for net in (test, train):
        losses = [layer for layer in net.layers if is_loss_type(layer) and layer.bottoms]
        losses = [layer for layer in losses if layer.bottoms[0].blob in test_blobs]
        if losses:
            greatest = max(map(_loss_weight, losses))
            return [layer for layer in losses if _loss_weight(layer) == greatest]
    return []


def _loss_weight(layer: Layer) -> float:
    return (*layer.params.loss_weight, 1.0)[0]


def _without_dead_ends(kept: list[Layer], losses: list[Layer], test: Net) -> list[Layer]:
    """Return the layers without those that only lead to a removed loss."""
    needed = {value.blob for loss in losses for value in loss.bottoms[:1]}
    needed |= {value.blob for value in test.outputs}
    needed_layers: list[Layer] = []
    for layer in reversed(kept):
        if not losses or not layer.tops or any(top.blob in needed for top in layer.tops):
            needed |= {value.blob for value in layer.bottoms}
            needed_layers.append(layer)
    return needed_layers[::-1]


def _label_blobs(net: Net) -> set[str]:
    """Return the label blobs: all tops of data layers except the first, and tops of layers that read only labels."""
    labels = {top.blob for layer in net.layers if _is_data(layer) for top in layer.tops[1:]}
    for layer in net.layers:
        if layer.bottoms and all(value.blob in labels for value in layer.bottoms):
            labels |= {top.blob for top in layer.tops}
    return labels


def _output_layer(layer: Layer) -> Layer | None:
    if _LOSS_OUTPUTS.get(layer.type) is None or not layer.bottoms:
        return None
    type_, field = _LOSS_OUTPUTS[layer.type] or ("", "")
    value = dict(layer.params.set_fields()).get(field)
    params = LayerParameter(**{field: value}) if value is not None else LayerParameter()
    return Layer("prob", type_, layer.bottoms[:1], (Value("prob"),), params)


def _with_unique_names(outputs: list[Layer], kept: list[Layer]) -> list[Layer]:
    """Return the output layers as prob, prob2, …, without those that the net already has."""
    existing = {(layer.type, layer.bottoms[0].blob) for layer in kept if layer.bottoms}
    new = [layer for layer in outputs if (layer.type, layer.bottoms[0].blob) not in existing]
    taken = {layer.name for layer in kept} | {value.blob for layer in kept for value in layer.tops}
    named = []
    for layer in new:
        name = next(n for n in ("prob", *(f"prob{i}" for i in range(2, len(new) + 3))) if n not in taken)
        taken.add(name)
        named.append(Layer(name, layer.type, layer.bottoms, (Value(name),), layer.params))
    return named


def _without_training_fields(layer: Layer) -> Layer:
    """Return the layer without the fields that only training uses: rules, multipliers, fillers."""
    cleared = layer.params.replace(**dict.fromkeys(_TRAINING_FIELDS))
    for name, value in list(cleared.set_fields()):
        if isinstance(value, Message):
            fillers = [f for f in _FILLERS if f in value.fields and _is_initial_value(value, f)]
            cleared = cleared.replace(**{name: value.replace(**dict.fromkeys(fillers))}) if fillers else cleared
    return Layer(layer.name, layer.type, layer.bottoms, layer.tops, cleared, layer.line)


def _is_initial_value(params: Message, name: str) -> bool:
    """Return whether a filler only gives the initial values for training.

    A bilinear filler defines a fixed upsampling; the fillers of a BatchNorm show that it has built-in scale and bias.
    """
    return not isinstance(params, BatchNormParameter) and getattr(params, name).type != "bilinear"


def _deploy_input_shapes(net: Net, input_shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shapes, with batch size 1, of all inputs and tops of data layers. Raises NetError for unknown ones."""
    shapes: dict[str, Shape] = {}
    analysis = analyse(net, input_shapes)
    needed = {value for layer in net.layers if not _is_loss_metric_or_label(layer, set()) for value in layer.bottoms}
    for value in [*net.inputs, *(top for layer in net.layers if _is_data(layer) for top in layer.tops)]:
        shape = analysis.shapes.get(value)
        if shape is not None:
            shapes[value.blob] = (1, *shape[1:])
        elif value in needed:
            where = net.source or net.name
            raise NetError(f"{where}: the shape of {value.blob!r} is not in the file; give it with --shape")
    return shapes
