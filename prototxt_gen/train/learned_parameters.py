"""The learned blobs of a net in the order of Caffe's learnable_params, with multipliers, fillers and solver histories.

Source: src/caffe/net.cpp Net::AppendParam; src/caffe/solvers/sgd_solver.cpp SGDSolver::SnapshotSolverState.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from prototxt_gen.caffemodel.types import SolverState
from prototxt_gen.common.errors import PrototxtGenError, UnsupportedError, WeightsError
from prototxt_gen.ir import show
from prototxt_gen.layers.base import BlobSpec
from prototxt_gen.runtime.parameter_location import ParameterLocation
from prototxt_gen.runtime.torch_net import LoweredLayer, TorchNet
from prototxt_gen.schema.caffe_proto import ParamSpec, SolverParameter
from prototxt_gen.train.fillers import blob_rng, fill
from prototxt_gen.train.optimisers import LearnedTensor, Optimiser

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LearnableParam:
    """One of Caffe's learnable_params: a blob of the layer that owns it.

    `optimiser_index` is its index in the optimiser, None if the solver does not learn it. Not learned are blobs with
    lr_mult 0, moving statistics of batch normalisation, and blobs that a frozen layer keeps; their histories stay 0.
    (In Caffe, AdaGrad and similar solvers add the weight decay of such blobs to these histories, which changes no
    weight.) With `force_backward` of the net, a blob with lr_mult 0 has a gradient too, which clip_gradients counts.
    """

    lowered: LoweredLayer
    role: str
    spec: BlobSpec
    multipliers: ParamSpec
    optimiser_index: int | None = None
    force_backward: bool = False
    disagreeing_layer: str = ""
    """Name of a layer that shares the blob where one of the two has lr_mult 0. Caffe then never updates the blob, but
    computes its gradient in the layer without lr_mult 0."""

    @property
    def parameter_location(self) -> ParameterLocation | None:
        """The PyTorch parameter that holds the blob; None if the solver does not learn it."""
        location = self.lowered.parameter_locations.get(self.role)
        frozen = self.spec.statistic or (self.multipliers.lr_mult == 0 and not self.force_backward)
        return location if location is not None and not frozen and location.parameter.requires_grad else None


def learnable_params(net: TorchNet) -> list[LearnableParam]:
    """Return the net's learnable_params in Caffe's order.

    Raises NetError if layers that share a blob give it different multipliers.
    """
    params: list[LearnableParam] = []
    index_of_name: dict[str, int] = {}
    for lowered in net.lowered_layers:
        for role, multipliers in roles_with_multipliers(lowered):
            name = multipliers.name
            if name in index_of_name:
                index = index_of_name[name]
                params[index] = _with_sharing_layer(params[index], multipliers, lowered)
                continue
            if name:
                index_of_name[name] = len(params)
            force_backward = net.net.params.force_backward
            param = LearnableParam(lowered, role, lowered.specs[role], multipliers, force_backward=force_backward)
            _refuse_unlearnable(param)
            params.append(param)
    return _with_optimiser_indices(params)


def _refuse_unlearnable(param: LearnableParam) -> None:
    """Raise UnsupportedError for a blob that should be learned but is no parameter: it would never change."""
    lowered = param.lowered
    if param.multipliers.lr_mult and not param.spec.statistic and param.role not in lowered.parameter_locations:
        layer = lowered.layer
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): its {param.role} cannot be learned in PyTorch")


def roles_with_multipliers(lowered: LoweredLayer) -> Iterator[tuple[str, ParamSpec]]:
    """Yield the role of each blob of a layer with its `param`. Raises NetError if there are more `param` than blobs."""
    given = lowered.layer.params.param
    if len(given) > len(lowered.roles):
        raise lowered.layer.error(f"it has {len(given)} param, and {len(lowered.roles)} blobs")
    yield from zip(lowered.roles, (*given, *[ParamSpec()] * (len(lowered.roles) - len(given))), strict=True)


def _with_sharing_layer(param: LearnableParam, multipliers: ParamSpec, lowered: LoweredLayer) -> LearnableParam:
    """Return the param merged with the multipliers of another layer that shares the blob."""
    disagrees = not param.force_backward and bool(multipliers.lr_mult) != bool(param.multipliers.lr_mult)
    name = lowered.layer.name if disagrees else param.disagreeing_layer
    return replace(
        param, multipliers=_merge_multipliers(param.multipliers, multipliers, lowered), disagreeing_layer=name
    )


def _merge_multipliers(first: ParamSpec, other: ParamSpec, lowered: LoweredLayer) -> ParamSpec:
    for name in ("lr_mult", "decay_mult"):
        if not other.has(name):
            continue
        value = getattr(other, name)
        if first.has(name) and getattr(first, name) != value:
            raise lowered.layer.error(
                f"it shares param {other.name!r}, of {name} {getattr(first, name):g}, with {value:g}"
            )
        first = first.replace(**{name: value})
    return first


def refuse_partial_clipping(params: Sequence[LearnableParam], solver: SolverParameter) -> None:
    """Raise UnsupportedError if clip_gradients would count only part of the gradient of a frozen, shared blob.

    Source: src/caffe/net.cpp Net::Init (param_propagate_down is per layer), Net::AppendParam (lr_mult is per blob).
    """
    for param in params if solver.clip_gradients >= 0 else ():
        if param.disagreeing_layer and param.multipliers.lr_mult == 0:
            layer, name = param.lowered.layer, param.multipliers.name
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): it shares param {name!r} with layer "
                f"{param.disagreeing_layer!r}, one with lr_mult: 0 and one without, so Caffe's clip_gradients counts "
                "the gradient of one of them, which is not done here: give both lr_mult: 0"
            )


def _with_optimiser_indices(params: Sequence[LearnableParam]) -> list[LearnableParam]:
    indexed, count = [], 0
    for param in params:
        is_learned = param.parameter_location is not None
        indexed.append(replace(param, optimiser_index=count if is_learned else None))
        count += is_learned
    return indexed


def learned_tensors(params: Sequence[LearnableParam]) -> list[LearnedTensor]:
    """Return the parameters that the optimiser updates, with their multipliers."""
    return [
        LearnedTensor(location.parameter, param.multipliers.lr_mult, param.multipliers.decay_mult)
        for param in params
        if (location := param.parameter_location) is not None
    ]


def overwritten_parameters(net: TorchNet, params: Sequence[LearnableParam]) -> list[Tensor]:
    """Return the parameters whose gradient each of the iter_size batches overwrites instead of adding to it.

    See `LayerType.overwritten`.
    """
    bottoms = {row.layer.name: [shape for shape in row.bottoms if shape is not None] for row in net.analysis.rows}
    return [
        location.parameter
        for param in params
        if (location := param.parameter_location) is not None
        and not param.multipliers.name
        and param.role in param.lowered.layer_type.overwritten(param.lowered.layer, bottoms[param.lowered.layer.name])
    ]


def freeze_others(net: TorchNet, params: Sequence[LearnableParam]) -> None:
    """Switch off the gradient of all parameters that are not learned. Source: Net::Init, param_propagate_down."""
    learned = {id(location.parameter) for param in params if (location := param.parameter_location) is not None}
    for parameter in net.parameters():
        parameter.requires_grad_(id(parameter) in learned)


def fill_blobs(net: TorchNet, seed: int) -> None:
    """Fill every blob with its filler. A shared blob gets the filler of the first layer that has it."""
    filled_names: set[str] = set()
    for lowered in net.lowered_layers:
        blobs = {}
        for index, (role, multipliers) in enumerate(roles_with_multipliers(lowered)):
            if multipliers.name not in filled_names:
                blobs[role] = _filled_blob(lowered, role, blob_rng(seed, lowered.layer.name, index))
            filled_names |= {multipliers.name} - {""}
        if blobs:
            lowered.layer_type.load(lowered.module, blobs)


def _filled_blob(lowered: LoweredLayer, role: str, rng: np.random.Generator) -> Array:
    spec = lowered.specs[role]
    try:
        return fill(spec.filler, spec.shape, rng)
    except PrototxtGenError as error:
        raise lowered.layer.error(f"its {role}: {error}") from None


def solver_histories(params: Sequence[LearnableParam], optimiser: Optimiser) -> Iterator[Array]:
    """Yield the histories in the order in which Caffe saves them: the first of all params, then the second of all."""
    for history in optimiser.histories:
        for param in params:
            location, index = param.parameter_location, param.optimiser_index
            if location is None or index is None:
                yield np.zeros(param.spec.shape, np.float32)
            else:
                yield location.to_blob(history[index]).reshape(param.spec.shape)


def load_histories(params: Sequence[LearnableParam], optimiser: Optimiser, state: SolverState) -> None:
    """Copy the histories of a solver state into the optimiser.

    Raises WeightsError if their number or their shapes are those of another solver type or another net.
    """
    expected = len(params) * len(optimiser.histories)
    if len(state.history) != expected:
        raise WeightsError(f"{state.path}: it holds {len(state.history)} histories, this solver has {expected}")
    pairs = ((history, param) for history in optimiser.histories for param in params)
    for blob, (history, param) in zip(state.history, pairs, strict=True):
        if blob.count != int(np.prod(param.spec.shape)):
            layer = param.lowered.layer
            sizes = f"{show(blob.shape)} in the file, {show(param.spec.shape)} in the net"
            message = f"layer {layer.name!r} ({layer.type}): the history of its {param.role} is {sizes}"
            raise WeightsError(f"{state.path}: {message}")
        location, index = param.parameter_location, param.optimiser_index
        if location is not None and index is not None:
            location.write_blob(history[index], blob.array())
