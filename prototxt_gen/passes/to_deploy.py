"""Train_val net to deploy net: data layers become inputs, SoftmaxWithLoss becomes Softmax, losses are removed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Layer, Net, Shape, Value
from prototxt_gen.layers.loss.infogain_loss import InfogainLossParameter
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter
from prototxt_gen.layers.utility.python import PythonParameter
from prototxt_gen.layers.utility.softmax import SoftmaxParameter
from prototxt_gen.net.phase_rules import is_source_layer
from prototxt_gen.passes.deploy_inputs import constants_as_inputs, refuse_broken, with_inputs
from prototxt_gen.passes.prediction_heads import (
    Head,
    auxiliary_heads,
    is_data_layer,
    is_loss_layer,
    is_metric_layer,
    learned_values,
    prediction_heads,
    values_from,
)
from prototxt_gen.schema.caffe_proto import LayerParameter, ParamSpec
from prototxt_gen.schema.message import Message

_FILLERS = ("weight_filler", "bias_filler", "slope_filler", "filler")
_TRAINING_FIELDS = {"include", "exclude", "phase", "param", "loss_weight", "propagate_down"}
_PASSING_TYPES = ("LabelSpecificAdd", "LabelSpecificRescale", "LabelSpecificMargin")
"""Types of happynear/caffe-windows that change the score of the label in training, and pass their first bottom on."""
_PASSING_CLASSES = ("ProposalTargetLayer",)
"""Python classes of py-faster-rcnn that choose the proposals to train on; a deploy net takes all of them."""


@dataclass(frozen=True)
class Deployment:
    """A deploy net; `remarks` are sentences for the user on heads left out and on shapes."""

    net: Net
    remarks: tuple[str, ...] = ()


def to_deploy(net: Net, input_shapes: Mapping[str, Shape] | None = None) -> Net:
    """Return the deploy net of the TEST phase of a train_val; see `deployment_of`, which also returns remarks."""
    return deployment_of(net, input_shapes).net


def deployment_of(
    net: Net,
    input_shapes: Mapping[str, Shape] | None = None,
    *,
    phase: str = "TEST",
    stages: Sequence[str] = (),
    level: int = 0,
    free_batch: Collection[str] = (),
) -> Deployment:
    """Return the deploy net of a train_val, with Softmax instead of SoftmaxWithLoss, and remarks.

    What the losses and metrics predict, and the outputs of the phase, are kept with all layers that they need; labels
    and whatever else only a loss reads are left out. An auxiliary head is left out too: a loss whose label is that of
    another loss of the same type with a greater loss_weight. `input_shapes` gives shapes of inputs; they are kept,
    except the batch size of those in `free_batch`. The batch size of other inputs becomes 1 unless a layer needs that
    of the file. Raises NetError if a shape is unknown, or if the net would not run.
    """
    stages = (*net.params.state.stage, *stages)
    phase_net = _with_softmax_tops(_without_label_layers(net.at(phase, stages, level)))
    other = _without_label_layers(net.at("TRAIN" if phase == "TEST" else "TEST", stages, level))
    heads = prediction_heads(phase_net, other)
    auxiliary = auxiliary_heads(phase_net, heads)
    wanted = _wanted_values(phase_net, heads, auxiliary)
    kept = _needed_layers(phase_net, wanted)
    if not kept:
        ends = ", ".join(f"layer {head.layer.name!r} ({head.layer.type})" for head in heads)
        what = f"nothing is left that computes an output: {ends} is removed" if ends else "no layer computes an output"
        raise NetError(f"{net.source or net.name}: {what} in the {phase} phase")
    predictions = [head for head in heads if not head.is_metric and head.predictions[0] in wanted]
    with_ends = _with_outputs(kept, predictions)
    results = {value.blob for value in wanted} | {top.blob for k in with_ends if k not in kept for top in k.tops}
    body = _relinked_body(net, with_ends)
    body = body.relinked(list(constants_as_inputs(body.layers, body)))
    body = body.relinked([*body.layers, *_silence(body, results)])
    deploy, remarks = with_inputs(body, phase_net, net, input_shapes or {}, free_batch)
    refuse_broken(deploy)
    return Deployment(deploy, (*_auxiliary_remarks(phase_net, auxiliary, kept), *remarks))


def _relinked_body(net: Net, layers: Sequence[Layer]) -> Net:
    empty = Net(net.name, (), (), net.params.replace(state=None), net.source)
    return empty.relinked([_without_training_fields(layer) for layer in layers])


def _without_label_layers(net: Net) -> Net:
    """Return the net without layers that need a label and otherwise pass their first bottom on."""
    source_of: dict[str, str] = {}
    kept = []
    for layer in net.layers:
        bottoms = tuple(Value(source_of.get(value.blob, value.blob)) for value in layer.bottoms)
        if layer.bottoms and layer.tops and _passes_first_bottom(layer):
            source_of[layer.tops[0].blob] = bottoms[0].blob
        else:
            kept.append(replace(layer, bottoms=bottoms))
    return net.relinked(kept) if source_of else net


def _passes_first_bottom(layer: Layer) -> bool:
    is_class = layer.type == "Python" and layer.get(PythonParameter).layer in _PASSING_CLASSES
    return is_class or layer.type in _PASSING_TYPES


def _with_softmax_tops(net: Net) -> Net:
    """Return the net with a Softmax layer for each loss whose second top is its softmax."""
    if not any(_has_softmax_top(layer) for layer in net.layers):
        return net
    changed: list[Layer] = []
    for layer in net.layers:
        output = _output_layer(layer) if _has_softmax_top(layer) else None
        if output is None:
            changed.append(layer)
            continue
        name = _unused_name("prob", {other.name for other in (*net.layers, *changed)})
        changed.append(replace(output, name=name, tops=layer.tops[1:2]))
        params = layer.params.replace(loss_weight=layer.params.loss_weight[:1] or None)
        changed.append(replace(layer, tops=layer.tops[:1], params=params))
    return net.relinked(changed)


def _has_softmax_top(layer: Layer) -> bool:
    return is_loss_layer(layer) and len(layer.tops) == 2 and _output_type(layer) == "Softmax"


def _wanted_values(net: Net, heads: Collection[Head], auxiliary: Collection[Head]) -> set[Value]:
    """Return the values that the deploy net must compute: predictions, and outputs that are no losses or metrics."""
    learned = learned_values(net)
    end_layers = {head.layer for head in heads if not set(head.predictions) & set(head.layer.tops)}
    outputs = {
        top
        for layer in net.layers
        if not is_source_layer(layer) and not is_loss_layer(layer) and not is_metric_layer(layer)
        for top in layer.tops
        if top in net.outputs and layer not in end_layers and (top in learned or not heads or not learned)
    }
    outputs -= values_from(net, (), is_loss_layer)
    main = {value for head in heads if head not in auxiliary and not head.is_metric for value in head.predictions}
    measured = {value for head in heads if head.is_metric for value in head.predictions}
    if learned:
        main, measured = main & learned, measured & learned
    of_main = values_from(net, main)
    of_auxiliary = values_from(net, [value for head in auxiliary for value in head.predictions])
    return main | ((outputs | measured) - (of_auxiliary - of_main))


def _needed_layers(net: Net, wanted: Collection[Value]) -> list[Layer]:
    """Return the layers, other than data layers, that compute these values."""
    needed = set(wanted)
    layers: list[Layer] = []
    for layer in reversed(net.layers):
        if not is_data_layer(layer) and not needed.isdisjoint(layer.tops):
            needed.update(layer.bottoms)
            layers.append(layer)
    return layers[::-1]


def _silence(body: Net, results: Collection[str]) -> list[Layer]:
    """Return a Silence layer for tops that only removed layers read, so that they are no outputs; or nothing."""
    extra = tuple(value for value in body.outputs if value.blob not in results)
    if not extra:
        return []
    name = _unused_name("silence", {layer.name for layer in body.layers})
    return [Layer(name, "Silence", extra, ())]


def _output_type(layer: Layer) -> str:
    """Return the type that computes what a loss compares with its label, or "" if that is its bottom itself."""
    if layer.type.startswith("SigmoidCrossEntropy"):
        return "Sigmoid"
    is_softmax = layer.type == "InfogainLoss" or (layer.type != "Python" and "Softmax" in layer.type)
    return "Softmax" if is_softmax else ""


def _output_layer(layer: Layer) -> Layer | None:
    type_ = _output_type(layer)
    if not type_ or not layer.bottoms:
        return None
    field = f"{type_.lower()}_param"
    value = dict(layer.params.set_fields()).get(field)
    axis = layer.get(InfogainLossParameter).axis
    if layer.type == "InfogainLoss" and axis != 1:
        value = SoftmaxParameter(axis=axis)
    params = LayerParameter(**{field: value}) if value is not None else LayerParameter()
    return Layer("prob", type_, layer.bottoms[:1], (Value("prob"),), params)


def _with_outputs(kept: Sequence[Layer], heads: Sequence[Head]) -> list[Layer]:
    """Return the layers with the output layers of the losses as prob, prob2, …, without those that exist already."""
    existing = {(layer.type, layer.bottoms[0]) for layer in kept if layer.bottoms}
    taken = {layer.name for layer in kept} | {value.blob for layer in kept for value in layer.tops}
    result = list(kept)
    for head in heads:
        output = _output_layer(head.layer)
        score = head.predictions[0]
        if output is None or (output.type, score) in existing or _has_probabilities(head, kept):
            continue
        existing.add((output.type, score))
        name = _unused_name("prob", taken)
        taken.add(name)
        result.append(Layer(name, output.type, (score,), (Value(name),), output.params))
    return result


def _has_probabilities(head: Head, kept: Sequence[Layer]) -> bool:
    """Return whether the loss is an InfogainLoss of older Caffe, whose bottom is the top of a Softmax."""
    makers = (layer.type for layer in kept if head.predictions[0] in layer.tops)
    return head.layer.type == "InfogainLoss" and "Softmax" in makers


def _unused_name(name: str, taken: Collection[str]) -> str:
    return next(n for n in (name, *(f"{name}{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _auxiliary_remarks(net: Net, auxiliary: Mapping[Head, Head], kept: Sequence[Layer]) -> Iterator[str]:
    """Yield a sentence for each auxiliary head whose layers are left out."""
    names = {layer.name for layer in kept}
    for head, main in auxiliary.items():
        removed = [repr(layer.name) for layer in _needed_layers(net, head.predictions) if layer.name not in names]
        if removed:
            yield (
                f"left out: auxiliary head {head}, whose label {head.label!r} is also that of {main}, with "
                f"{'layer' if len(removed) == 1 else 'layers'} {', '.join(removed)}"
            )


def _without_training_fields(layer: Layer) -> Layer:
    """Return the layer without the fields that only training uses: rules, multipliers, fillers.

    The names of shared parameters stay: they also say which layers have the same weights.
    """
    names = [ParamSpec(name=spec.name) if spec.name else ParamSpec() for spec in layer.params.param]
    cleared = layer.params.replace(**dict.fromkeys(_TRAINING_FIELDS))
    if any(names):
        cleared = cleared.replace(param=names)
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
