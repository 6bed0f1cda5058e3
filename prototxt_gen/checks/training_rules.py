"""Rules for training: losses, batch normalisation, fillers, learning rate multipliers, shared blobs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prototxt_gen import layers
from prototxt_gen.analysis import Row
from prototxt_gen.checks.problem import ERROR, WARNING, PhaseNet, Problem, file_problem, layer_problem
from prototxt_gen.ir import Layer, show
from prototxt_gen.layers.base import BlobSpec
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter
from prototxt_gen.layers.normalization.bn import BNParameter
from prototxt_gen.net.phase_rules import is_loss, is_source_layer
from prototxt_gen.schema.caffe_proto import FillerParameter, ParamSpec
from prototxt_gen.schema.message import Message

MIN_BATCH = 32
"""Smallest batch per GPU without a warning. Statistics of fewer images are too noisy, says the author of the paper."""
_STATISTIC_INDICES = {"BN": (2, 3), "BatchNorm": (0, 1, 2)}
"""Indices of the statistics among a layer's blobs, used if the shapes, and so the blobs, are unknown."""
_WEIGHT_FILLERS = ("weight_filler", "slope_filler")


def no_loss(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem if a TRAIN net with data layers has no loss, nor a Python or unknown layer that may be one."""
    known = all(layers.find_layer_type(layer.type) is not None and layer.type != "Python" for layer in phase.net.layers)
    has_data = any(is_source_layer(layer) and layer.type != "Input" for layer in phase.net.layers)
    if phase.name == "TRAIN" and known and has_data and not any(map(is_loss, phase.net.layers)):
        yield file_problem(WARNING, "no-loss", "no layer of the TRAIN phase is a loss, so nothing is learned")


def frozen_bn(phase: PhaseNet) -> Iterator[Problem]:
    for layer in phase.net.layers if phase.is_training else ():
        if layer.get(BNParameter).frozen:
            message = "frozen: true in a training net: its statistics, slope and bias never change"
            yield layer_problem(WARNING, "frozen-bn", layer, message)
        if layer.get(BatchNormParameter).use_global_stats:
            message = "use_global_stats: true in a training net: it normalises by statistics that never change"
            yield layer_problem(WARNING, "frozen-bn", layer, message)


def batch_statistics_in_test(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem for each layer that normalises by the batch in the TEST phase, where that is rarely meant."""
    for layer in phase.net.layers if phase.name == "TEST" else ():
        if layer.type in _STATISTIC_INDICES and (message := layers.layer_type_of(layer).assumed(layer)):
            yield layer_problem(WARNING, "batch-statistics", layer, message)


def learned_statistics(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem for each BN or BatchNorm whose moving statistics the solver would learn as parameters.

    Source: src/caffe/layers/batch_norm_layer.cpp BatchNormLayer::LayerSetUp refuses it; the forks' BN does not.
    """
    for row in phase.rows:
        layer, specs = row.layer, row.layer.params.param
        learned = [i for i in _statistic_indices(row) if i >= len(specs) or specs[i].lr_mult]
        if layer.type == "BatchNorm" and any(index < len(specs) for index in learned):
            message = "the param of its statistics must have lr_mult: 0; Caffe refuses other values"
            yield layer_problem(ERROR, "learning-statistics", layer, message)
        elif layer.type == "BN" and learned and phase.is_training:
            message = (
                "the solver changes its moving statistics: blobs 3 and 4 need param { lr_mult: 0 decay_mult: 0 } "
                "(only in the forks yjxiong and PSPNet this is not necessary)"
            )
            yield layer_problem(WARNING, "learning-statistics", layer, message)


def _statistic_indices(row: Row) -> tuple[int, ...]:
    if row.known:
        return tuple(index for index, spec in enumerate(row.blobs.values()) if spec.statistic)
    merged = row.layer.get(BNParameter).segnet or row.layer.get(BatchNormParameter).merged
    return () if merged else _STATISTIC_INDICES.get(row.layer.type, ())


def missing_fillers(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem for each learned weight that starts at 0 everywhere, since training cannot improve it."""
    owned: set[str] = set()
    for layer in phase.net.layers if phase.is_training else ():
        spec = layer.params.param[0] if layer.params.param else ParamSpec()
        if spec.lr_mult and spec.name not in owned:
            yield from _missing_filler_problems(layer)
        owned |= {spec.name} - {""}


def _missing_filler_problems(layer: Layer) -> Iterator[Problem]:
    layer_type = layers.find_layer_type(layer.type)
    params = layer.get(layer_type.params[0]) if layer_type is not None and layer_type.params else Message()
    for name in _WEIGHT_FILLERS:
        if name not in params.fields:
            continue
        filler = getattr(params, name)
        if _is_zero(filler):
            cause = f"{name} is constant 0" if params.has(name) else f"it has no {name}, which means constant 0"
            yield layer_problem(WARNING, "no-filler", layer, f"{cause}; it can only learn from loaded weights")


def _is_zero(filler: FillerParameter) -> bool:
    return filler.type == "constant" and filler.value == 0


def small_batch(phase: PhaseNet) -> Iterator[Problem]:
    """Yield one problem for the first layer that normalises by a batch of fewer than MIN_BATCH images."""
    normalising = [row for row in phase.rows if phase.is_training and _normalises_by_batch(row.layer)]
    batch = next((row.bottoms[0][0] for row in normalising if row.bottoms and row.bottoms[0]), _declared_batch(phase))
    if normalising and batch is not None and batch < MIN_BATCH:
        message = f"its statistics come from {batch} images; with fewer than {MIN_BATCH} per GPU they are too noisy"
        others = f" (the same for {len(normalising) - 1} more layers)" if len(normalising) > 1 else ""
        yield layer_problem(WARNING, "small-batch", normalising[0].layer, message + others)


def _normalises_by_batch(layer: Layer) -> bool:
    if layer.type == "BN":
        params = layer.get(BNParameter)
        return not params.frozen and params.bn_mode != "INFERENCE"
    return layer.type == "BatchNorm" and not layer.get(BatchNormParameter).use_global_stats


def _declared_batch(phase: PhaseNet) -> int | None:
    """Return the batch size in the parameters of a data layer, for nets whose shapes are unknown."""
    for layer in phase.net.layers:
        layer_type = layers.find_layer_type(layer.type)
        for kind in layer_type.params if layer_type is not None and layer_type.data else ():
            if "batch_size" in kind.fields and layer.get(kind).has("batch_size"):
                return int(getattr(layer.get(kind), "batch_size"))  # noqa: B009  (the kind is not known to mypy)
    return None


def too_many_params(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem for each layer with more `param` than learned blobs. Source: src/caffe/net.cpp Net::Init."""
    for row in phase.rows:
        count = len(row.layer.params.param)
        if row.known and count > len(row.blobs):
            roles = f" ({', '.join(row.blobs)})" if row.blobs else ""
            message = f"it has {count} param, but only {len(row.blobs)} learned blobs{roles}"
            yield layer_problem(ERROR, "too-many-params", row.layer, message)


def mismatched_shared_blobs(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem for each shared blob unlike its owner's. Source: src/caffe/net.cpp Net::AppendParam."""
    owners: dict[str, tuple[Layer, BlobSpec, ParamSpec]] = {}
    for row in phase.rows:
        for param, blob in zip(row.layer.params.param, row.blobs.values(), strict=False):
            if param.name:
                owner = owners.setdefault(param.name, (row.layer, blob, param))
                yield from _sharing_problems(row.layer, blob, param, *owner)


def _sharing_problems(
    layer: Layer, blob: BlobSpec, param: ParamSpec, owner: Layer, owner_blob: BlobSpec, owner_param: ParamSpec
) -> Iterator[Problem]:
    sharing = f"param {param.name!r} is shared with layer {owner.name!r} in line {owner.line}"
    permitted = param.share_mode == "PERMISSIVE" and math.prod(blob.shape) == math.prod(owner_blob.shape)
    if blob.shape != owner_blob.shape and not permitted:
        message = f"{sharing}, but the shapes differ: {show(blob.shape)} and {show(owner_blob.shape)}"
        yield layer_problem(ERROR, "shared-shape", layer, message)
    for name in ("lr_mult", "decay_mult"):
        value, owner_value = getattr(param, name), getattr(owner_param, name)
        if param.has(name) and owner_param.has(name) and value != owner_value:
            message = f"{sharing}, but {name} is {value:g} here and {owner_value:g} there"
            yield layer_problem(ERROR, "shared-multiplier", layer, message)


TRAINING_RULES = (
    no_loss,
    frozen_bn,
    batch_statistics_in_test,
    learned_statistics,
    missing_fillers,
    small_batch,
    too_many_params,
    mismatched_shared_blobs,
)
