"""Which phases a net file is meant for: a train_val for both, a deploy net for TEST, an old train net for TRAIN."""

from __future__ import annotations

from prototxt_gen import layers
from prototxt_gen.ir import Layer, Net

PHASES = ("TRAIN", "TEST")
METRICS = frozenset({"Accuracy", "Silence", "HDF5Output", "DetectionEvaluate"})
"""Types at the end of a net that tell or swallow, and compute nothing a net is made for."""

_BY_PHASE = frozenset({"BN", "BatchNorm", "Dropout"})
"""Types that compute in training what they do not else, which a layer's own `phase` settles whatever the net's is."""


def refuse_other_phases(net: Net, phase: str) -> None:
    """Raise NetError for a layer that would run in another phase than the net's.

    Source: src/caffe/net.cpp Net::Init.
    """
    for layer in net.layers:
        if layer.type in _BY_PHASE and layer.params.has("phase") and layer.params.phase != phase:
            raise layer.error(f"phase: {layer.params.phase}, though the net is of the {phase} phase; not done here")


def phases_of(net: Net) -> tuple[str, ...]:
    """Return the phases that a net, as read, is meant for.

    The one that its `state` names; else those that its rules tell apart and that have a layer which data come from;
    without such rules, TRAIN where it has a loss, TEST where it has none.
    """
    if net.params.state.has("phase"):
        return (net.params.state.phase,)
    if not any(_names_a_phase(layer) for layer in net.layers):
        return ("TRAIN",) if _is_training(net) else ("TEST",)
    return tuple(phase for phase in PHASES if _is_fed(net.at(phase), phase)) or PHASES


def _is_fed(net: Net, phase: str) -> bool:
    """Whether data come to a net of this phase; bare inputs are those of a deploy net, unless a loss says otherwise."""
    sources = [layer for layer in net.layers if is_source(layer)]
    if any(layer.type != "Input" for layer in sources):
        return True
    return bool(sources or net.inputs) and (phase == "TEST" or any(map(is_loss, net.layers)))


def is_source(layer: Layer) -> bool:
    """Whether the layer makes blobs out of nothing: a data layer, or a Python layer that is one."""
    return bool(layer.tops) and not layer.bottoms and layer.type != "Parameter"


def is_loss_type(layer: Layer) -> bool:
    """Whether the type is that of a loss."""
    layer_type = layers.find_layer_type(layer.type)
    return layer_type.loss if layer_type is not None else layer.type.endswith(("Loss", "LOSS"))


def is_loss(layer: Layer) -> bool:
    """Whether the layer adds to what training makes small: a loss, or any layer given a loss weight."""
    weights = layer.params.loss_weight
    return any(weights) if weights else is_loss_type(layer)


def is_ending(layer: Layer) -> bool:
    """Whether a net rightly ends at this layer's tops: a loss or a metric."""
    return is_loss(layer) or layer.type in METRICS


def _names_a_phase(layer: Layer) -> bool:
    return any(rule.has("phase") for rule in (*layer.params.include, *layer.params.exclude))


def _is_training(net: Net) -> bool:
    """A net of one phase with a loss trains; but with an Accuracy and not one filler it is an old test net."""
    if not any(map(is_loss, net.layers)):
        return False
    return not any(layer.type == "Accuracy" for layer in net.layers) or any(map(_is_filled, net.layers))


def _is_filled(layer: Layer) -> bool:
    own = (value for name, value in layer.params.set_fields() if name.endswith("_param"))
    return any(name.endswith("filler") for message in own for name, _ in message.set_fields())
