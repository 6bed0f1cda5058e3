"""What a solver learns: the blobs of a net in Caffe's order, with their multipliers, fillers and histories.

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
from prototxt_gen.runtime.torch_net import Learned, Step, TorchNet
from prototxt_gen.schema.caffe_proto import ParamSpec, SolverParameter
from prototxt_gen.train.fillers import fill, rng_for
from prototxt_gen.train.optimisers import Learnable, Optimiser

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Slot:
    """One of Caffe's learnable_params: a blob that no other layer owns. `place` is the optimiser's; None: not learned.

    `forced`: the net has force_backward, so a blob of lr_mult 0 has a gradient too, which clip_gradients counts. Else
    not learned are lr_mult 0, BN's moving statistics and what a frozen layer keeps; their histories stay 0. (Caffe's
    AdaGrad and its like add up the decay of such blobs there; it changes no weight.)
    """

    step: Step
    role: str
    spec: BlobSpec
    multipliers: ParamSpec
    place: int | None = None
    forced: bool = False
    partly: str = ""
    """A layer that shares it and disagrees whether it has a gradient there: one has lr_mult 0, which holds for all."""

    @property
    def learned(self) -> Learned | None:
        """Where the blob lives, if the solver learns it."""
        found = self.step.learned.get(self.role)
        frozen = self.spec.statistic or (self.multipliers.lr_mult == 0 and not self.forced)
        return found if found is not None and not frozen and found.parameter.requires_grad else None


def slots_of(net: TorchNet) -> list[Slot]:
    """Return the slots in Caffe's order; NetError where layers that share a blob disagree about its multipliers."""
    found: list[Slot] = []
    named: dict[str, int] = {}
    for step in net.steps:
        for role, own in owned(step):
            if own.name in named:
                index = named[own.name]
                found[index] = _shared(found[index], own, step)
                continue
            if own.name:
                named[own.name] = len(found)
            found.append(_checked(Slot(step, role, step.specs[role], own, forced=net.net.params.force_backward)))
    return _placed(found)


def _checked(slot: Slot) -> Slot:
    """Refuse a blob that shall be learned and that no parameter holds as it is: it would silently stay as it was."""
    if slot.multipliers.lr_mult and not slot.spec.statistic and slot.role not in slot.step.learned:
        layer = slot.step.layer
        raise UnsupportedError(f"layer {layer.name!r} ({layer.type}): its {slot.role} cannot be learned in PyTorch")
    return slot


def owned(step: Step) -> Iterator[tuple[str, ParamSpec]]:
    """Yield every role of a step with its multipliers; NetError where there are more of these than blobs."""
    given = step.layer.params.param
    if len(given) > len(step.roles):
        raise step.layer.error(f"it has {len(given)} param, and {len(step.roles)} blobs")
    yield from zip(step.roles, (*given, *[ParamSpec()] * (len(step.roles) - len(given))), strict=True)


def _shared(slot: Slot, own: ParamSpec, step: Step) -> Slot:
    """Return the slot with what another layer says that shares its blob."""
    disagrees = not slot.forced and bool(own.lr_mult) != bool(slot.multipliers.lr_mult)
    partly = step.layer.name if disagrees else slot.partly
    return replace(slot, multipliers=_merged(slot.multipliers, own, step), partly=partly)


def _merged(first: ParamSpec, other: ParamSpec, step: Step) -> ParamSpec:
    for name in ("lr_mult", "decay_mult"):
        if not other.has(name):
            continue
        value = getattr(other, name)
        if first.has(name) and getattr(first, name) != value:
            raise step.layer.error(
                f"it shares param {other.name!r}, of {name} {getattr(first, name):g}, with {value:g}"
            )
        first = first.replace(**{name: value})
    return first


def refuse_clipping(slots: Sequence[Slot], solver: SolverParameter) -> None:
    """UnsupportedError where clip_gradients would count the gradient of some of the layers that share a frozen blob.

    Source: src/caffe/net.cpp Net::Init (param_propagate_down is by layer), Net::AppendParam (lr_mult is by blob).
    """
    for slot in slots if solver.clip_gradients >= 0 else ():
        if slot.partly and slot.multipliers.lr_mult == 0:
            layer, name = slot.step.layer, slot.multipliers.name
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): it shares param {name!r} with layer {slot.partly!r}, one with "
                "lr_mult: 0 and one without, so Caffe's clip_gradients counts the gradient of one of them, which is "
                "not done here: give both lr_mult: 0"
            )


def _placed(slots: Sequence[Slot]) -> list[Slot]:
    made, count = [], 0
    for slot in slots:
        learned = slot.learned is not None
        made.append(replace(slot, place=count if learned else None))
        count += learned
    return made


def learnables(slots: Sequence[Slot]) -> list[Learnable]:
    """Return what the optimiser learns, and let nothing else have a gradient."""
    return [
        Learnable(slot.learned.parameter, slot.multipliers.lr_mult, slot.multipliers.decay_mult)
        for slot in slots
        if slot.learned is not None
    ]


def overwritten(net: TorchNet, slots: Sequence[Slot]) -> list[Tensor]:
    """Return the parameters whose gradient each of iter_size batches writes anew (`LayerType.overwritten`)."""
    bottoms = {row.layer.name: [shape for shape in row.bottoms if shape is not None] for row in net.analysis.rows}
    return [
        slot.learned.parameter
        for slot in slots
        if slot.learned is not None
        and not slot.multipliers.name
        and slot.role in slot.step.layer_type.overwritten(slot.step.layer, bottoms[slot.step.layer.name])
    ]


def freeze_others(net: TorchNet, slots: Sequence[Slot]) -> None:
    """Let no parameter have a gradient but those that are learned. Source: Net::Init, param_propagate_down."""
    wanted = {id(slot.learned.parameter) for slot in slots if slot.learned is not None}
    for parameter in net.parameters():
        parameter.requires_grad_(id(parameter) in wanted)


def fill_all(net: TorchNet, seed: int) -> None:
    """Fill every blob as its filler says; a shared one as its first layer's does."""
    shared: set[str] = set()
    for step in net.steps:
        blobs = {}
        for index, (role, own) in enumerate(owned(step)):
            if own.name not in shared:
                blobs[role] = _filled(step, role, rng_for(seed, step.layer.name, index))
            shared |= {own.name} - {""}
        if blobs:
            step.layer_type.load(step.module, blobs)


def _filled(step: Step, role: str, rng: np.random.Generator) -> Array:
    spec = step.specs[role]
    try:
        return fill(spec.filler, spec.shape, rng)
    except PrototxtGenError as error:
        raise step.layer.error(f"its {role}: {error}") from None


def histories(slots: Sequence[Slot], optimiser: Optimiser) -> Iterator[Array]:
    """Yield the histories as Caffe saves them: the first of every slot, then the second of every slot."""
    for history in optimiser.histories:
        for slot in slots:
            if slot.learned is None or slot.place is None:
                yield np.zeros(slot.spec.shape, np.float32)
            else:
                yield slot.learned.blob(history[slot.place]).reshape(slot.spec.shape)


def put_histories(slots: Sequence[Slot], optimiser: Optimiser, state: SolverState) -> None:
    """Take over the histories of a state; WeightsError where they are another solver's or another net's."""
    wanted = len(slots) * len(optimiser.histories)
    if len(state.history) != wanted:
        raise WeightsError(f"{state.path}: it holds {len(state.history)} histories, this solver has {wanted}")
    for blob, (history, slot) in zip(state.history, ((h, s) for h in optimiser.histories for s in slots), strict=True):
        if blob.count != int(np.prod(slot.spec.shape)):
            who = f"layer {slot.step.layer.name!r} ({slot.step.layer.type})"
            sizes = f"{show(blob.shape)} in the file, {show(slot.spec.shape)} in the net"
            raise WeightsError(f"{state.path}: {who}: the history of its {slot.role} is {sizes}")
        if slot.learned is not None and slot.place is not None:
            slot.learned.put(history[slot.place], blob.array())
