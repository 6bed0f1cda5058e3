"""train_val net to deploy net: data layers become inputs, losses and accuracies go, SoftmaxWithLoss becomes Softmax."""

from __future__ import annotations

from collections.abc import Mapping

from prototxt_gen import layers
from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Layer, Net, Shape, Value
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter
from prototxt_gen.net.lowering_checks import is_fed
from prototxt_gen.net.phase_rules import METRICS, is_loss_type, is_source
from prototxt_gen.schema.caffe_proto import LayerParameter
from prototxt_gen.schema.message import Message

_ENDINGS = {
    "SoftmaxWithLoss": ("Softmax", "softmax_param"),
    "SigmoidCrossEntropyLoss": ("Sigmoid", "sigmoid_param"),
    "MultinomialLogisticLoss": None,
}
"""What a loss layer hides inside: the layer that a deploy net ends with."""
_FILLERS = ("weight_filler", "bias_filler", "slope_filler", "filler")
_TRAINING_FIELDS = {"include", "exclude", "phase", "param", "loss_weight", "propagate_down"}


def deploy(net: Net, given: Mapping[str, Shape] | None = None) -> Net:
    """Return the deploy net of a train_val, batch 1, with a Softmax where SoftmaxWithLoss was.

    `given` gives shapes N×C×H×W of blobs that data layers make; NetError where a needed one is not known.
    Of several losses only those of the greatest weight count: auxiliary heads are for training, and go.
    """
    test = net.at("TEST")
    losses = _main_losses(test, net.at("TRAIN"))
    labels = _label_blobs(test)
    kept = [layer for layer in test.layers if not _is_data(layer) and not _is_ending(layer, labels)]
    kept = _without_dead_ends(kept, losses, test)
    endings = [made for layer in losses if (made := _ending(layer)) is not None]
    bare = Net(net.name, (), (), net.params.replace(state=None), net.source)
    body = bare.relinked([_bare(layer) for layer in [*kept, *_once(endings, kept)]])
    used = {value.blob for layer in body.layers for value in layer.bottoms if value.version < 0}
    inputs = tuple(Value(blob, 0, shape) for blob, shape in _sources(test, given or {}).items() if blob in used)
    return Net(net.name, inputs, (), bare.params, net.source).relinked(body.layers)


def _is_data(layer: Layer) -> bool:
    """Whether the layer brings data from outside; one that makes constants stays."""
    layer_type = layers.find_layer_type(layer.type)
    return is_fed(layer) if layer_type is not None and layer_type.data else is_source(layer)


def _is_ending(layer: Layer, labels: set[str]) -> bool:
    """Losses, metrics, and whatever works on labels alone."""
    only_labels = bool(layer.bottoms) and all(value.blob in labels for value in layer.bottoms)
    return is_loss_type(layer) or layer.type in METRICS or only_labels


def _main_losses(test: Net, train: Net) -> list[Layer]:
    """Return the losses of the greatest weight: of the TEST phase, or of TRAIN where only that has any."""
    made = {value.blob for value in test.values()}
    for net in (test, train):
        found = [layer for layer in net.layers if is_loss_type(layer) and layer.bottoms]
        found = [layer for layer in found if layer.bottoms[0].blob in made]
        if found:
            most = max(map(_weight, found))
            return [layer for layer in found if _weight(layer) == most]
    return []


def _weight(layer: Layer) -> float:
    return (*layer.params.loss_weight, 1.0)[0]


def _without_dead_ends(kept: list[Layer], losses: list[Layer], test: Net) -> list[Layer]:
    """Leave out what led to a loss that goes, and to nothing else."""
    wanted = {value.blob for loss in losses for value in loss.bottoms[:1]}
    wanted |= {value.blob for value in test.outputs}
    alive: list[Layer] = []
    for layer in reversed(kept):
        if not losses or not layer.tops or any(top.blob in wanted for top in layer.tops):
            wanted |= {value.blob for value in layer.bottoms}
            alive.append(layer)
    return alive[::-1]


def _label_blobs(net: Net) -> set[str]:
    """Return the blobs that only losses and metrics take: tops of data layers beside the first, and their like."""
    labels = {top.blob for layer in net.layers if _is_data(layer) for top in layer.tops[1:]}
    for layer in net.layers:
        if layer.bottoms and all(value.blob in labels for value in layer.bottoms):
            labels |= {top.blob for top in layer.tops}
    return labels


def _ending(layer: Layer) -> Layer | None:
    if _ENDINGS.get(layer.type) is None or not layer.bottoms:
        return None
    type_, field = _ENDINGS[layer.type] or ("", "")
    own = dict(layer.params.set_fields()).get(field)
    params = LayerParameter(**{field: own}) if own is not None else LayerParameter()
    return Layer("prob", type_, layer.bottoms[:1], (Value("prob"),), params)


def _once(endings: list[Layer], kept: list[Layer]) -> list[Layer]:
    """Leave out an ending whose layer is there already; number the others where there are several."""
    there = {(layer.type, layer.bottoms[0].blob) for layer in kept if layer.bottoms}
    new = [layer for layer in endings if (layer.type, layer.bottoms[0].blob) not in there]
    taken = {layer.name for layer in kept} | {value.blob for layer in kept for value in layer.tops}
    named = []
    for layer in new:
        name = next(n for n in ("prob", *(f"prob{i}" for i in range(2, len(new) + 3))) if n not in taken)
        taken.add(name)
        named.append(Layer(name, layer.type, layer.bottoms, (Value(name),), layer.params))
    return named


def _bare(layer: Layer) -> Layer:
    """Return the layer without what only training reads: rules, multipliers, fillers."""
    cleared = layer.params.replace(**dict.fromkeys(_TRAINING_FIELDS))
    for name, own in list(cleared.set_fields()):
        fillers = [f for f in _FILLERS if isinstance(own, Message) and f in own.fields and _is_start(own, f)]
        if fillers:
            cleared = cleared.replace(**{name: own.replace(**dict.fromkeys(fillers))})
    return Layer(layer.name, layer.type, layer.bottoms, layer.tops, cleared, layer.line)


def _is_start(own: Message, name: str) -> bool:
    """Whether a filler only says how training starts.

    That of a fixed upsampling says what the layer computes, and those of a merged BatchNorm, that it is merged.
    """
    return not isinstance(own, BatchNormParameter) and getattr(own, name).type != "bilinear"


def _sources(net: Net, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return batch-1 shapes of all blobs that inputs and data layers make."""
    found: dict[str, Shape] = {}
    analysis = analyse(net, given)
    needed = {value for layer in net.layers if not _is_ending(layer, set()) for value in layer.bottoms}
    for value in [*net.inputs, *(top for layer in net.layers if _is_data(layer) for top in layer.tops)]:
        shape = analysis.shapes.get(value)
        if shape is not None:
            found[value.blob] = (1, *shape[1:])
        elif value in needed:
            where = net.source or net.name
            raise NetError(f"{where}: the shape of {value.blob!r} is not known from the file; give it with --shape")
    return found
