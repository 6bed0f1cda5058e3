"""Detection of the phases that a net file is meant for, and of losses, metrics and data layers.

A train_val is meant for TRAIN and TEST, a deploy net for TEST, an old train net for TRAIN.
"""

from __future__ import annotations

from prototxt_gen import layers
from prototxt_gen.ir import Layer, Net

PHASES = ("TRAIN", "TEST")
METRICS = frozenset({"Accuracy", "HDF5Output", "DetectionEvaluate"})
"""Types at the end of a net that measure or write their bottoms, and compute no result of the net."""

_PHASE_DEPENDENT_TYPES = frozenset({"BN", "BatchNorm", "Dropout"})
"""Types that compute something else in training than in testing; a layer's own `phase` field overrules the net's."""


def phase_of_layer(layer: Layer, net_phase: str) -> str:
    """Return the phase in which a layer computes: that of its own `phase` field, if set, else the net's.

    Source: src/caffe/net.cpp Net::Init.
    """
    return layer.params.phase if layer.params.has("phase") else net_phase


def refuse_other_phases(net: Net, phase: str) -> None:
    """Raise NetError if the `phase` field of a layer makes it run in another phase than the rest of the net.

    Source: src/caffe/net.cpp Net::Init.
    """
    for layer in net.layers:
        if layer.type in _PHASE_DEPENDENT_TYPES and layer.params.has("phase") and layer.params.phase != phase:
            raise layer.error(
                f"it has phase: {layer.params.phase}, but the net runs in the {phase} phase; this is not supported"
            )


def intended_phases(net: Net) -> tuple[str, ...]:
    """Return the phases that a net file is meant for, given its net with the layers of all phases.

    These are the phase in its `state` field, if set; else, if layers have include or exclude rules with a phase, the
    phases that have a data layer; else TRAIN if the net has a loss, TEST if it has none.
    """
    if net.params.state.has("phase"):
        return (net.params.state.phase,)
    if not any(_has_phase_rule(layer) for layer in net.layers):
        return ("TRAIN",) if _is_training_net(net) else ("TEST",)
    return tuple(phase for phase in PHASES if _has_data(net.at(phase), phase)) or PHASES


def _has_data(net: Net, phase: str) -> bool:
    """Return whether a net of one phase has data; inputs count for TEST, and for TRAIN if the net has a loss."""
    source_layers = [layer for layer in net.layers if is_source_layer(layer)]
    if any(layer.type != "Input" for layer in source_layers):
        return True
    return bool(source_layers or net.inputs) and (phase == "TEST" or any(map(is_loss, net.layers)))


def is_source_layer(layer: Layer) -> bool:
    """Return whether the layer has tops but no bottoms: a data or Input layer, or a Python layer that loads data."""
    return bool(layer.tops) and not layer.bottoms and layer.type != "Parameter"


def is_loss_type(layer: Layer) -> bool:
    """Return whether the layer's type is a loss."""
    layer_type = layers.find_layer_type(layer.type)
    return layer_type.loss if layer_type is not None else layer.type.endswith(("Loss", "LOSS"))


def is_loss(layer: Layer) -> bool:
    """Return whether the layer adds to the training loss: a type that is a loss, or a layer with a loss_weight."""
    weights = layer.params.loss_weight
    return any(weights) if weights else is_loss_type(layer)


def is_loss_or_metric(layer: Layer) -> bool:
    """Return whether the layer is a loss or a metric, so that its tops may be outputs of a training net."""
    return is_loss(layer) or layer.type in METRICS


def _has_phase_rule(layer: Layer) -> bool:
    return any(rule.has("phase") for rule in (*layer.params.include, *layer.params.exclude))


def _is_training_net(net: Net) -> bool:
    """Return whether a net without phase rules is for training: it has a loss.

    A net with a loss and an Accuracy but without any filler is an old test net.
    """
    if not any(map(is_loss, net.layers)):
        return False
    return not any(layer.type == "Accuracy" for layer in net.layers) or any(map(_has_filler, net.layers))


def _has_filler(layer: Layer) -> bool:
    type_params = (value for name, value in layer.params.set_fields() if name.endswith("_param"))
    return any(name.endswith("filler") for message in type_params for name, _ in message.set_fields())
