"""What is converted or verified: a net of one phase, everything known of it, with its weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TypeVar

from converters.common.preprocessing import Preprocessing, told_by
from prototxt_gen import layers
from prototxt_gen import weights as weighing
from prototxt_gen.analysis import Analysis, analyse, resized
from prototxt_gen.common.errors import NetError, UnsupportedError, WeightsError
from prototxt_gen.ir import NOBODY, Layer, Net, Shape, Value, show
from prototxt_gen.net import phase_rules
from prototxt_gen.net.lowering_checks import is_fed, ready, results, sources, without_fields
from prototxt_gen.passes.global_pooling import following_head
from prototxt_gen.passes.to_deploy import deploy
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.schema.message import Message
from prototxt_gen.weights import Weights

M = TypeVar("M", bound=Message)
NetLike = str | PathLike[str] | Net
WeightsLike = str | PathLike[str] | Weights | None
"""None: of a net that learns nothing."""


@dataclass(frozen=True)
class Subject:
    """A net of one phase with its weights, and the files they came from.

    `as_filed`: the net is the prototxt's own, nothing changed, so that Caffe itself may read the files.
    """

    analysis: Analysis
    weights: Weights
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    prototxt: Path | None = None
    caffemodel: Path | None = None
    as_filed: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def net(self) -> Net:
        return self.analysis.net

    @property
    def sources(self) -> tuple[Value, ...]:
        """The values that come from outside."""
        return sources(self.net)

    def last_values(self) -> dict[str, Value]:
        """Return each blob's last value."""
        return {value.blob: value for value in self.net.values()}


@dataclass(frozen=True)
class Reading:
    """How the files are to be read.

    `shapes` gives N×C×H×W by blob; `size` resizes the image input, and pooling over the whole map stays just that.
    """

    phase: str = "TEST"
    stages: tuple[str, ...] = ()
    level: int = 0
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    size: tuple[int, ...] = ()
    dialect: str | None = None
    statistic: str | None = None
    ignored: Collection[str] = ()


def open_subject(net: NetLike, weights: WeightsLike, how: Reading | None = None) -> Subject:
    """Read a net and its weights for conversion.

    A train_val net becomes its deploy net: data layers become inputs, losses and metrics go. Raises PrototxtError,
    NetError and WeightsError, each with all that is wrong in one text.
    """
    how = how or Reading()
    whole = net if isinstance(net, Net) else _read(net)
    test, told = _of_phase(whole, how)
    found = told_by(test)
    stripped, left_out = understood(test, how.ignored)
    told += left_out
    stripped = following_head(stripped) if how.size else stripped
    shapes = {**(resized(stripped, how.size) if how.size else {}), **how.shapes}
    given = {**shapes}
    ready_net, remarks = _without_training(stripped, given)
    if not results(ready_net):
        why = f"nothing is left that computes an output: {remarks[0]}" if remarks else "no layer computes an output"
        raise NetError(f"{whole.source or whole.name}: {why}")
    analysis = ready(ready_net, given)
    read = _weights(weights, analysis, how)
    changed = bool(remarks or told or given) or how != Reading(dialect=how.dialect, statistic=how.statistic)
    return Subject(
        analysis,
        read,
        found,
        None if isinstance(net, Net) else Path(net),
        None if weights is None or isinstance(weights, Weights) else Path(weights),
        not changed and _is_plain(analysis, read),
        (*told, *remarks, *read.remarks, *_assumed(analysis)),
    )


def understood(net: Net, ignored: Collection[str] = ()) -> tuple[Net, list[str]]:
    """Return the net without unknown fields that change no result, and sentences on what is left out."""
    stripped, left_out = _without_training_fields(without_fields(net, ignored).map(_plain_data))
    stripped, engines = _without_engines(stripped)
    return stripped, [*left_out, *engines]


def _assumed(analysis: Analysis) -> list[str]:
    """Return what is taken for granted, a sentence for each text and the layers it holds for."""
    held: dict[str, list[str]] = {}
    for row in analysis.rows:
        if text := layers.layer_type_of(row.layer).assumed(row.layer):
            held.setdefault(text, []).append(f"layer {row.layer.name!r} ({row.layer.type})")
    return [f"{', '.join(names)}: {text}" for text, names in held.items()]


def _is_plain(analysis: Analysis, weights: Weights) -> bool:
    """Whether a Caffe that reads the files as they are would take them for the same: inputs declared, no variances.

    Upsample with a mask unpools in the forks that nets with one are of, and repeats pixels in brocolli-caffe.
    """
    fed = {layer.type for layer in analysis.net.layers if _is_data(layer)}
    variances = any("variance" in weights.of(layer.name) for layer in analysis.net.layers if layer.type == "BN")
    unpooled = any(layer.type == "Upsample" and len(layer.bottoms) > 1 for layer in analysis.net.layers)
    plain = not variances and not unpooled
    return bool(analysis.net.inputs or fed) and fed <= {"Input", "DummyData"} and plain


def _read(path: str | PathLike[str]) -> Net:
    from prototxt_gen.net.prototxt_reader import read

    return read(path)


def _weights(weights: WeightsLike, analysis: Analysis, how: Reading) -> Weights:
    if isinstance(weights, Weights):
        return weights
    if weights is None:
        _refuse_without_weights(analysis)
        return Weights({})
    return weighing.read(fspath(weights), analysis, how.dialect, how.statistic)


def _refuse_without_weights(analysis: Analysis) -> None:
    learned = [row.layer for row in analysis.rows if row.blobs]
    if learned:
        first = f"{learned[0].name!r} ({learned[0].type})"
        more = f" and {len(learned) - 1} more layers" if len(learned) > 1 else ""
        where = analysis.net.source or analysis.net.name
        raise WeightsError(f"{where}: it needs weights, for layer {first}{more}: give a .caffemodel after it")


def _of_phase(net: Net, how: Reading) -> tuple[Net, list[str]]:
    """Return the net of the phase; blobs that only the other phase has a data layer for come from that one."""
    stages, level = (*net.params.state.stage, *how.stages), how.level
    found = net.at(how.phase, stages, level)
    phase_rules.refuse_other_phases(found, how.phase)
    other = net.at("TEST" if how.phase == "TRAIN" else "TRAIN", stages, level)
    missing = {value.blob for layer in found.layers for value in layer.bottoms if value.version == NOBODY}
    lent = [layer for layer in other.layers if _is_data(layer) and missing & {top.blob for top in layer.tops}]
    if not lent:
        return found, []
    told = [
        f"no layer of the {how.phase} phase makes {', '.join(repr(v.blob) for v in layer.tops if v.blob in missing)}; "
        f"its shape is that of layer {layer.name!r} ({layer.type}) of the other phase"
        for layer in lent
    ]
    plain = [replace(layer, params=layer.params.replace(include=None, exclude=None)) for layer in lent]
    return found.relinked([*plain, *found.layers]), told


def _is_data(layer: Layer) -> bool:
    layer_type = layers.find_layer_type(layer.type)
    return layer_type is not None and layer_type.data


def _plain_data(layer: Layer) -> Layer:
    """Return a data layer without fields that are not understood: where data come from is nothing to an input."""
    if not is_fed(layer):
        return layer
    names = {extra.name for path, extra in layer.params.walk_extras()}
    return without_fields(Net("", (), (layer,)), names).layers[0]


def _without_training_fields(net: Net) -> tuple[Net, list[str]]:
    """Return the net without unknown fields that can only matter to a solver: of fillers, and V1's learning rates.

    What they begin with, or how they are learned, is nothing to weights that are there.
    """
    made = net.map(lambda layer: replace(layer, params=_without_filler_extras(layer.params).without_extras(_V1_RATES)))
    return made, _left_out(net, made, "only training needs, and so is left out")


def _without_engines(net: Net) -> tuple[Net, list[str]]:
    """Return the net without engines that only a fork has, such as Intel's MKL2017, or where only a fork has them."""
    made = without_fields(net, ("engine",))
    return made, _left_out(net, made, "which code computes a layer does not change what it computes, and is left out")


def _left_out(before: Net, after: Net, why: str) -> list[str]:
    pairs = zip(before.layers, after.layers, strict=True)
    gone = {path for old, new in pairs for path in _extras(old) - _extras(new)}
    return [f"{why}: {', '.join(sorted(gone))}"] if gone else []


_V1_RATES = ("blobs_lr", "weight_decay")


def _extras(layer: Layer) -> set[str]:
    return {path for path, _ in layer.params.walk_extras()}


def _without_filler_extras(message: M) -> M:
    """Return a message whose fillers, at any depth, hold known fields alone."""
    if isinstance(message, FillerParameter):
        return message.without_extras({extra.name for extra in message.extras})
    inner = {name: _without_filler_extras(value) for name, value in message.set_fields() if isinstance(value, Message)}
    return message.replace(**inner) if inner else message


def _without_training(net: Net, given: dict[str, Shape]) -> tuple[Net, list[str]]:
    """Return the net without losses and metrics; `given` then loses what the inputs have taken over."""
    ends = [layer for layer in net.layers if phase_rules.is_ending(layer)]
    if not ends:
        return net, []
    bare = net.map(lambda layer: replace(layer, params=layer.params.replace(include=None, exclude=None)))
    made = deploy(bare, given)
    for value in made.inputs:
        given.pop(value.blob, None)
    kept = {layer.name for layer in made.layers}
    gone = [f"{layer.name!r} ({layer.type})" for layer in ends if layer.name not in kept]
    new = [f"{layer.name!r} ({layer.type})" for layer in made.layers if layer.line == 0]
    instead = f", {', '.join(new)} in their place" if new else ""
    return made, [f"what only training and testing need is left out: {', '.join(gone)}{instead}"]


def check_shapes(subject: Subject, arrays: Mapping[str, Shape]) -> None:
    """Raise an error where an array for an input has another shape than the input."""
    shapes = {value.blob: subject.analysis.shapes[value] for value in subject.sources}
    for blob, shape in arrays.items():
        if blob not in shapes:
            raise UnsupportedError(f"the net has no input {blob!r}; it has {', '.join(shapes)}")
        if shape != shapes[blob]:
            raise UnsupportedError(f"input {blob!r} is {show(shapes[blob])}, the array given for it {show(shape)}")


def bounds(analysis: Analysis) -> dict[str, Shape]:
    """Return the shape of every source by blob."""
    return {value.blob: analysis.shapes[value] for value in sources(analysis.net)}


def reanalysed(analysis: Analysis, shapes: Mapping[str, Shape]) -> Analysis:
    """Return the analysis of the same net with other shapes of its sources."""
    return analyse(analysis.net, {**bounds(analysis), **shapes})
