"""Rules about what training makes of a net: losses, batch normalisation, fillers, multipliers, shared blobs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prototxt_gen import layers
from prototxt_gen.analysis import Row
from prototxt_gen.checks.problem import ERROR, WARNING, Phase, Problem, of_file, of_layer
from prototxt_gen.ir import Layer, show
from prototxt_gen.layers.base import BlobSpec
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter
from prototxt_gen.layers.normalization.bn import BNParameter
from prototxt_gen.net.phase_rules import is_loss, is_source
from prototxt_gen.schema.caffe_proto import FillerParameter, ParamSpec
from prototxt_gen.schema.message import Message

LEAST_BATCH = 32
"""Images on one GPU below which batch statistics are too noisy; the paper's readers were told so by its author."""
_STATISTICS = {"BN": (2, 3), "BatchNorm": (0, 1, 2)}
"""Places of the statistics among the blobs, for where the shapes, and so the blobs, are not known."""
_WEIGHT_FILLERS = ("weight_filler", "slope_filler")


def no_loss(phase: Phase) -> Iterator[Problem]:
    """Where data layers feed the TRAIN phase, and no Python or unknown layer may be the loss."""
    known = all(layers.find_layer_type(layer.type) is not None and layer.type != "Python" for layer in phase.net.layers)
    fed = any(is_source(layer) and layer.type != "Input" for layer in phase.net.layers)
    if phase.name == "TRAIN" and known and fed and not any(map(is_loss, phase.net.layers)):
        yield of_file(WARNING, "no-loss", "no layer of the TRAIN phase is a loss, so nothing is learned")


def frozen_bn(phase: Phase) -> Iterator[Problem]:
    for layer in phase.net.layers if phase.trains else ():
        if layer.get(BNParameter).frozen:
            message = "frozen: true in a net that trains: it keeps its statistics, and learns no slope and no bias"
            yield of_layer(WARNING, "frozen-bn", layer, message)
        if layer.get(BatchNormParameter).use_global_stats:
            message = "use_global_stats: true in a net that trains: it normalises by statistics that never change"
            yield of_layer(WARNING, "frozen-bn", layer, message)


def learning_statistics(phase: Phase) -> Iterator[Problem]:
    """Source: src/caffe/layers/batch_norm_layer.cpp BatchNormLayer::LayerSetUp refuses what BN's forks let pass."""
    for row in phase.rows:
        layer, specs = row.layer, row.layer.params.param
        learning = [i for i in _statistics(row) if i >= len(specs) or specs[i].lr_mult]
        if layer.type == "BatchNorm" and any(index < len(specs) for index in learning):
            message = "the param of its statistics needs lr_mult: 0; Caffe refuses another"
            yield of_layer(ERROR, "learning-statistics", layer, message)
        elif layer.type == "BN" and learning and phase.trains:
            message = (
                "the solver learns its moving statistics: blobs 3 and 4 need param { lr_mult: 0 decay_mult: 0 } "
                "(only the forks yjxiong and PSPNet see to it themselves)"
            )
            yield of_layer(WARNING, "learning-statistics", layer, message)


def _statistics(row: Row) -> tuple[int, ...]:
    if row.known:
        return tuple(index for index, spec in enumerate(row.blobs.values()) if spec.statistic)
    merged = row.layer.get(BNParameter).segnet or row.layer.get(BatchNormParameter).merged
    return () if merged else _STATISTICS.get(row.layer.type, ())


def missing_fillers(phase: Phase) -> Iterator[Problem]:
    """Weights that all start at 0: their gradients are alike or 0, and training goes nowhere."""
    owned: set[str] = set()
    for layer in phase.net.layers if phase.trains else ():
        spec = layer.params.param[0] if layer.params.param else ParamSpec()
        if spec.lr_mult and spec.name not in owned:
            yield from _without_filler(layer)
        owned |= {spec.name} - {""}


def _without_filler(layer: Layer) -> Iterator[Problem]:
    layer_type = layers.find_layer_type(layer.type)
    own = layer.get(layer_type.params[0]) if layer_type is not None and layer_type.params else Message()
    for name in _WEIGHT_FILLERS:
        if name not in own.fields:
            continue
        filler = getattr(own, name)
        if _is_zero(filler):
            what = f"{name} is constant 0" if own.has(name) else f"it has no {name}, which means constant 0"
            yield of_layer(WARNING, "no-filler", layer, f"{what}; it learns only from weights that are loaded")


def _is_zero(filler: FillerParameter) -> bool:
    return filler.type == "constant" and filler.value == 0


def small_batch(phase: Phase) -> Iterator[Problem]:
    """One problem for the net: the first layer that normalises by a batch too small."""
    learning = [row for row in phase.rows if phase.trains and _normalises_by_batch(row.layer)]
    batch = next((row.bottoms[0][0] for row in learning if row.bottoms and row.bottoms[0]), _told_batch(phase))
    if learning and batch is not None and batch < LEAST_BATCH:
        message = f"its statistics are those of {batch} images; below {LEAST_BATCH} on each GPU they are too noisy"
        others = f" (the same for {len(learning) - 1} layers more)" if len(learning) > 1 else ""
        yield of_layer(WARNING, "small-batch", learning[0].layer, message + others)


def _normalises_by_batch(layer: Layer) -> bool:
    if layer.type == "BN":
        own = layer.get(BNParameter)
        return not own.frozen and own.bn_mode != "INFERENCE"
    own_bvlc = layer.get(BatchNormParameter)
    return layer.type == "BatchNorm" and not own_bvlc.use_global_stats


def _told_batch(phase: Phase) -> int | None:
    """Return the batch size that a data layer states, where shapes are not known."""
    for layer in phase.net.layers:
        layer_type = layers.find_layer_type(layer.type)
        for kind in layer_type.params if layer_type is not None and layer_type.data else ():
            if "batch_size" in kind.fields and layer.get(kind).has("batch_size"):
                return int(getattr(layer.get(kind), "batch_size"))  # noqa: B009  (the kind is not known to mypy)
    return None


def too_many_specs(phase: Phase) -> Iterator[Problem]:
    """Source: src/caffe/net.cpp Net::Init."""
    for row in phase.rows:
        count = len(row.layer.params.param)
        if row.known and count > len(row.blobs):
            roles = f" ({', '.join(row.blobs)})" if row.blobs else ""
            message = f"param is given {count} times; it has {len(row.blobs)} blobs{roles}"
            yield of_layer(ERROR, "too-many-params", row.layer, message)


def shared_blobs(phase: Phase) -> Iterator[Problem]:
    """Source: src/caffe/net.cpp Net::AppendParam."""
    owners: dict[str, tuple[Layer, BlobSpec, ParamSpec]] = {}
    for row in phase.rows:
        for param, blob in zip(row.layer.params.param, row.blobs.values(), strict=False):
            if param.name:
                owner = owners.setdefault(param.name, (row.layer, blob, param))
                yield from _unlike(row.layer, blob, param, *owner)


def _unlike(
    layer: Layer, blob: BlobSpec, param: ParamSpec, owner: Layer, owned: BlobSpec, first: ParamSpec
) -> Iterator[Problem]:
    who = f"param {param.name!r} is shared with layer {owner.name!r} of line {owner.line}"
    loose = param.share_mode == "PERMISSIVE" and math.prod(blob.shape) == math.prod(owned.shape)
    if blob.shape != owned.shape and not loose:
        message = f"{who}, but the shapes are {show(blob.shape)} and {show(owned.shape)}"
        yield of_layer(ERROR, "shared-shape", layer, message)
    for name in ("lr_mult", "decay_mult"):
        mine, theirs = getattr(param, name), getattr(first, name)
        if param.has(name) and first.has(name) and mine != theirs:
            yield of_layer(
                ERROR, "shared-multiplier", layer, f"{who}, but {name} is {mine:g} here and {theirs:g} there"
            )


TRAINING_RULES = (
    no_loss,
    frozen_bn,
    learning_statistics,
    missing_fillers,
    small_batch,
    too_many_specs,
    shared_blobs,
)
