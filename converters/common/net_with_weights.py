"""A net of one phase together with its weights: the input of every conversion and verification."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path

from converters.common.harmless_fields import without_harmless_fields
from converters.common.preprocessing import Preprocessing, preprocessing_of_net
from prototxt_gen import layers
from prototxt_gen import weights as net_weights
from prototxt_gen.analysis import Analysis, resized_input_shapes
from prototxt_gen.common.errors import NetError, UnsupportedError, WeightsError
from prototxt_gen.ir import NOBODY, Layer, Net, Shape, Value, show
from prototxt_gen.net import phase_rules
from prototxt_gen.net.fork_rules import NOTHING_SAID, ForkRules, with_fork_rules
from prototxt_gen.net.lowering_checks import analyse_for_conversion, computed_outputs, net_inputs
from prototxt_gen.net.prototxt_reader import read_net
from prototxt_gen.passes.global_pooling import with_global_pooling
from prototxt_gen.passes.prediction_heads import is_loss_layer
from prototxt_gen.passes.to_deploy import deployment_of
from prototxt_gen.weights import Weights

NetLike = str | PathLike[str] | Net
"""The path of a prototxt, or a net."""
WeightsLike = str | PathLike[str] | Weights | None
"""The path of a .caffemodel or .h5, or weights. None for a net without learned blobs."""


@dataclass(frozen=True)
class NetWithWeights:
    """A net of one phase, its weights, its preprocessing, and the files that both were read from.

    `analysis` holds the net and the shapes of all its blobs. `remarks` are sentences for the user on what was changed
    or assumed while reading.
    """

    analysis: Analysis
    weights: Weights
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    prototxt: Path | None = None
    caffemodel: Path | None = None
    matches_files: bool = False
    """Whether `prototxt` and `caffemodel` hold exactly this net, so that Caffe can read the files themselves."""
    remarks: tuple[str, ...] = ()

    @property
    def net(self) -> Net:
        return self.analysis.net

    @property
    def input_values(self) -> tuple[Value, ...]:
        """The values that the user feeds: the net's inputs, and tops of data layers that some layer uses."""
        return net_inputs(self.net)

    def last_values(self) -> dict[str, Value]:
        """Return the last value of each blob, by blob name: an in-place layer gives its blob a new value."""
        return {value.blob: value for value in self.net.values()}


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a net and its weights.

    `phase`, `stages` and `level` select layers by Caffe's include and exclude rules. `shapes`: shapes of inputs and
    data layers, N×C×H×W, by blob name. `input_size`: height and width for the image input; pooling over the whole map
    stays global. `dialect`: the Caffe fork that wrote the weights, if the file does not show it. `bn_statistic`:
    "inverse_std" or "variance", the content of the fourth blob of BN, if the file does not show it. `ignore_fields`:
    names of unknown fields that do not change the result. `fork_rules`: what layers mean that forks of Caffe compute
    in different ways.
    """

    phase: str = "TEST"
    stages: tuple[str, ...] = ()
    level: int = 0
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    input_size: tuple[int, ...] = ()
    dialect: str | None = None
    bn_statistic: str | None = None
    ignore_fields: Collection[str] = ()
    fork_rules: ForkRules = NOTHING_SAID


def read_net_with_weights(net: NetLike, weights: WeightsLike, options: ReadOptions | None = None) -> NetWithWeights:
    """Read a net and its weights for conversion.

    A train_val net becomes its deploy net: data layers become inputs, losses and metrics are removed. Raises
    PrototxtError, NetError (UnsupportedError among them) or WeightsError, each listing all problems in one message.
    """
    options = options or ReadOptions()
    whole_net = net if isinstance(net, Net) else _read_prototxt(net)
    phase_net, phase_remarks = _net_of_phase(whole_net, options)
    stripped, field_remarks = without_harmless_fields(phase_net, options.ignore_fields)
    stripped = with_global_pooling(stripped) if options.input_size else stripped
    shapes = {**(resized_input_shapes(stripped, options.input_size) if options.input_size else {}), **options.shapes}
    stripped, rule_remarks = with_fork_rules(stripped, options.fork_rules, shapes)
    free_batch = set(shapes) - set(options.shapes) if len(options.input_size) < 4 else set()
    deploy_net, deploy_remarks = _without_losses_and_metrics(stripped, shapes, free_batch)
    if not computed_outputs(deploy_net):
        why = "no layer computes an output"
        why = f"nothing is left that computes an output: {deploy_remarks[0]}" if deploy_remarks else why
        raise NetError(f"{whole_net.source or whole_net.name}: {why}")
    analysis = analyse_for_conversion(deploy_net, shapes)
    loaded = _load_weights(weights, analysis, options)
    remarks = (*phase_remarks, *field_remarks, *deploy_remarks, *rule_remarks)
    only_weight_options = ReadOptions(dialect=options.dialect, bn_statistic=options.bn_statistic)
    is_changed = bool(remarks or shapes) or options != only_weight_options
    return NetWithWeights(
        analysis,
        loaded,
        preprocessing_of_net(phase_net),
        None if isinstance(net, Net) else Path(net),
        None if weights is None or isinstance(weights, Weights) else Path(weights),
        not is_changed and _is_readable_by_caffe(analysis, loaded),
        (*remarks, *loaded.remarks, *_assumption_remarks(analysis)),
    )


def _assumption_remarks(analysis: Analysis) -> list[str]:
    """Return a sentence for each assumption about layers, with the layers that it is made for."""
    layers_of: dict[str, list[str]] = {}
    for row in analysis.rows:
        if assumption := layers.layer_type_of(row.layer).assumed(row.layer):
            layers_of.setdefault(assumption, []).append(f"layer {row.layer.name!r} ({row.layer.type})")
    return [f"{', '.join(names)}: {assumption}" for assumption, names in layers_of.items()]


def _is_readable_by_caffe(analysis: Analysis, weights: Weights) -> bool:
    """Whether the Caffe that we build reads these files as the same net.

    It needs declared inputs, and inverse standard deviations in BN. Upsample with a mask is no max unpooling there,
    but repeats pixels, as in brocolli-caffe.
    """
    data_types = {layer.type for layer in analysis.net.layers if _is_data_layer(layer)}
    has_variance = any("variance" in weights.of(layer.name) for layer in analysis.net.layers if layer.type == "BN")
    has_unpooling = any(layer.type == "Upsample" and len(layer.bottoms) > 1 for layer in analysis.net.layers)
    has_inputs = bool(analysis.net.inputs or data_types) and data_types <= {"Input", "DummyData"}
    return has_inputs and not has_variance and not has_unpooling


def _read_prototxt(path: str | PathLike[str]) -> Net:

    return read_net(path)


def _load_weights(weights: WeightsLike, analysis: Analysis, options: ReadOptions) -> Weights:
    if isinstance(weights, Weights):
        return weights
    if weights is None:
        _refuse_missing_weights(analysis)
        return Weights({})
    return net_weights.read(fspath(weights), analysis, options.dialect, options.bn_statistic)


def _refuse_missing_weights(analysis: Analysis) -> None:
    """Raise WeightsError if the net has learned blobs."""
    learned = [row.layer for row in analysis.rows if row.blobs]
    if learned:
        first = f"{learned[0].name!r} ({learned[0].type})"
        more = f" and {len(learned) - 1} more layers" if len(learned) > 1 else ""
        where = analysis.net.source or analysis.net.name
        raise WeightsError(f"{where}: it needs weights, for layer {first}{more}: give a .caffemodel after it")


def _net_of_phase(net: Net, options: ReadOptions) -> tuple[Net, list[str]]:
    """Return the net of the phase, and remarks.

    If a blob has no producer in this phase but a data layer in the other one, that data layer is added.
    """
    stages, level = (*net.params.state.stage, *options.stages), options.level
    phase_net = net.at(options.phase, stages, level)
    phase_rules.refuse_other_phases(phase_net, options.phase)
    other = net.at("TEST" if options.phase == "TRAIN" else "TRAIN", stages, level)
    missing = {value.blob for layer in phase_net.layers for value in layer.bottoms if value.version == NOBODY}
    added = [layer for layer in other.layers if _is_data_layer(layer) and missing & {top.blob for top in layer.tops}]
    if not added:
        return phase_net, []
    remarks = [
        f"no layer of the {options.phase} phase makes "
        f"{', '.join(repr(value.blob) for value in layer.tops if value.blob in missing)}; "
        f"its shape is that of layer {layer.name!r} ({layer.type}) of the other phase"
        for layer in added
    ]
    return phase_net.relinked([*map(_without_phase_rules, added), *phase_net.layers]), remarks


def _without_phase_rules(layer: Layer) -> Layer:
    return replace(layer, params=layer.params.replace(include=None, exclude=None))


def _is_data_layer(layer: Layer) -> bool:
    layer_type = layers.find_layer_type(layer.type)
    return layer_type is not None and layer_type.data


def _without_losses_and_metrics(
    net: Net, shapes: dict[str, Shape], free_batch: Collection[str]
) -> tuple[Net, list[str]]:
    """Return the deploy net, and remarks. Shapes that its inputs declare are removed from `shapes`."""
    if not any(phase_rules.is_loss_or_metric(layer) or is_loss_layer(layer) for layer in net.layers):
        return net, []
    done = deployment_of(net.map(_without_phase_rules), shapes, free_batch=free_batch)
    for value in done.net.inputs:
        shapes.pop(value.blob, None)
    kept = {layer.name for layer in done.net.layers}
    removed = [f"{layer.name!r} ({layer.type})" for layer in net.layers if layer.name not in kept and layer.bottoms]
    added = [f"{layer.name!r} ({layer.type})" for layer in done.net.layers if layer.line == 0]
    instead = f", {', '.join(added)} in their place" if added else ""
    text = f"layers that only training and testing need are left out: {', '.join(removed)}{instead}"
    return done.net, [*([text] if removed else []), *done.remarks]


def check_input_shapes(model: NetWithWeights, arrays: Mapping[str, Shape]) -> None:
    """Raise UnsupportedError if an array's shape differs from the shape of its input. `arrays`: shapes by blob name."""
    shapes = {value.blob: model.analysis.shapes[value] for value in model.input_values}
    for blob, shape in arrays.items():
        if blob not in shapes:
            raise UnsupportedError(f"the net has no input {blob!r}; it has {', '.join(shapes)}")
        if shape != shapes[blob]:
            raise UnsupportedError(f"input {blob!r} is {show(shapes[blob])}, the array given for it {show(shape)}")
