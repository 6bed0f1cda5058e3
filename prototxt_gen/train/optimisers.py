"""Caffe's six solvers, on lists of tensors.

One update is, as in SGDSolver::ApplyUpdate (src/caffe/solvers/sgd_solver.cpp): clip the gradients' common norm; divide
by iter_size; add the weight decay; then the solver's own rule. In the rules w are the weights, g the gradients, h and k
the histories, r is the learning rate times lr_mult.

AdaGrad, RMSProp and AdaDelta are those of torch.optim; SGD and Nesterov are not (there, a change of the rate reaches
into the past), nor is Adam (there, delta is not in the same place). All are here in one form, as all have to give their
histories to a .solverstate in Caffe's order and meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prototxt_gen.common.errors import PrototxtGenError, nearest
from prototxt_gen.schema.caffe_proto import SolverParameter
from prototxt_gen.train.lr_policies import single

Tensors = list[Tensor]


@dataclass(frozen=True)
class Numbers:
    """The solver's numbers as Caffe holds them, in float32, and the number of the update, from 1."""

    momentum: float
    momentum2: float
    rms_decay: float
    delta: float
    update: int = 0

    @classmethod
    def of(cls, p: SolverParameter, update: int) -> Numbers:
        """Return a solver's numbers."""
        momentum, momentum2, rms_decay, delta = map(single, (p.momentum, p.momentum2, p.rms_decay, p.delta))
        return cls(momentum, momentum2, rms_decay, delta, update)


@dataclass(frozen=True)
class Learnable:
    """One tensor that is learned, and its multipliers."""

    parameter: Tensor
    lr_mult: float = 1.0
    decay_mult: float = 1.0


@dataclass(frozen=True)
class _Group:
    """Learnables of equal multipliers, updated together: their places in the optimiser, weights and histories."""

    lr_mult: float
    decay_mult: float
    places: list[int]
    weights: Tensors
    histories: tuple[Tensors, ...]


class Optimiser:
    """Updates learnables as a solver says. `histories[k][i]` is the k-th history of learnable i, laid out like it.

    Raises PrototxtGenError for a type or a regularization that is not known, and for a momentum that AdaGrad or RMSProp
    would not take.
    """

    def __init__(self, params: SolverParameter, type_: str, learnables: Sequence[Learnable]) -> None:
        _check(params, type_)
        self.params, self.learnables = params, list(learnables)
        self.histories = [
            [torch.zeros_like(one.parameter, requires_grad=False) for one in learnables]
            for _ in range(_HISTORIES[type_])
        ]
        self._rule = _RULES[type_]
        self._groups = self._grouped()

    def _grouped(self) -> list[_Group]:
        places: dict[tuple[float, float], list[int]] = {}
        for place, one in enumerate(self.learnables):
            places.setdefault((single(one.lr_mult), single(one.decay_mult)), []).append(place)
        return [
            _Group(
                *multipliers,
                found,
                [self.learnables[place].parameter for place in found],
                tuple([history[place] for place in found] for history in self.histories),
            )
            for multipliers, found in places.items()
        ]

    @torch.no_grad()
    def update(self, rate: float, iteration: int) -> None:
        """Make update number `iteration`, counted from 0, of the gradients summed over iter_size batches.

        The gradients are used up. A parameter without one counts as having zeros: it still decays, as in Caffe.
        """
        gradients = [_gradient(one.parameter) for one in self.learnables]
        if not gradients:
            return
        if self.params.clip_gradients >= 0:
            clip(gradients, single(self.params.clip_gradients))
        if self.params.iter_size > 1:
            torch._foreach_mul_(gradients, 1 / self.params.iter_size)
        numbers = Numbers.of(self.params, iteration + 1)
        for group in self._groups:
            mine = [gradients[place] for place in group.places]
            self._decay(group, mine)
            self._rule(group.weights, mine, *group.histories, r=single(rate * group.lr_mult), n=numbers)

    def _decay(self, group: _Group, gradients: Tensors) -> None:
        """Source: SGDSolver::Regularize."""
        decay = single(self.params.weight_decay) * group.decay_mult
        if decay:
            added = group.weights if self.params.regularization_type == "L2" else torch._foreach_sign(group.weights)
            torch._foreach_add_(gradients, added, alpha=decay)


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def clip(gradients: Tensors, most: float) -> None:
    """Scale the gradients so that their common L2 norm is at most `most`. Source: SGDSolver::ClipGradients."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, torch.where(norm > most, most / norm, 1.0))


def sgd(w: Tensors, g: Tensors, h: Tensors, r: float, n: Numbers) -> None:
    """h = momentum·h + r·g; w -= h. Source: sgd_solver.cpp SGDSolver::ComputeUpdateValue."""
    torch._foreach_mul_(h, n.momentum)
    torch._foreach_add_(h, g, alpha=r)
    torch._foreach_sub_(w, h)


def nesterov(w: Tensors, g: Tensors, h: Tensors, r: float, n: Numbers) -> None:
    """h' = momentum·h + r·g; w -= (1 + momentum)·h' - momentum·h. Source: nesterov_solver.cpp ComputeUpdateValue."""
    change = torch._foreach_mul(h, -n.momentum)
    torch._foreach_mul_(h, n.momentum)
    torch._foreach_add_(h, g, alpha=r)
    torch._foreach_add_(change, h, alpha=1 + n.momentum)
    torch._foreach_sub_(w, change)


def adagrad(w: Tensors, g: Tensors, h: Tensors, r: float, n: Numbers) -> None:
    """h += g²; w -= r·g / (√h + delta). Source: adagrad_solver.cpp ComputeUpdateValue."""
    torch._foreach_addcmul_(h, g, g)
    _descend(w, g, h, r, n)


def rmsprop(w: Tensors, g: Tensors, h: Tensors, r: float, n: Numbers) -> None:
    """h = rms_decay·h + (1 - rms_decay)·g²; w -= r·g / (√h + delta). Source: rmsprop_solver.cpp ComputeUpdateValue."""
    torch._foreach_mul_(h, n.rms_decay)
    torch._foreach_addcmul_(h, g, g, 1 - n.rms_decay)
    _descend(w, g, h, r, n)


def adadelta(w: Tensors, g: Tensors, h: Tensors, k: Tensors, r: float, n: Numbers) -> None:
    """h = momentum·h + (1 - momentum)·g²; d = g·√((k + delta) / (h + delta)); k likewise of d²; w -= r·d.

    Source: adadelta_solver.cpp ComputeUpdateValue.
    """
    torch._foreach_mul_(h, n.momentum)
    torch._foreach_addcmul_(h, g, g, 1 - n.momentum)
    change = torch._foreach_add(k, n.delta)
    torch._foreach_div_(change, torch._foreach_add(h, n.delta))
    torch._foreach_sqrt_(change)
    torch._foreach_mul_(change, g)
    torch._foreach_mul_(k, n.momentum)
    torch._foreach_addcmul_(k, change, change, 1 - n.momentum)
    torch._foreach_add_(w, change, alpha=-r)


def adam(w: Tensors, g: Tensors, h: Tensors, k: Tensors, r: float, n: Numbers) -> None:
    """h = momentum·h + (1 - momentum)·g; k = momentum2·k + (1 - momentum2)·g²; w -= r·c·h / (√k + delta).

    c = √(1 - momentum2^t) / (1 - momentum^t) at update t, from 1. Source: adam_solver.cpp ComputeUpdateValue.
    """
    torch._foreach_mul_(h, n.momentum)
    torch._foreach_add_(h, g, alpha=1 - n.momentum)
    torch._foreach_mul_(k, n.momentum2)
    torch._foreach_addcmul_(k, g, g, 1 - n.momentum2)
    correction = math.sqrt(1 - n.momentum2**n.update) / (1 - n.momentum**n.update)
    _descend(w, h, k, single(r * single(correction)), n)


def _descend(w: Tensors, towards: Tensors, squares: Tensors, r: float, n: Numbers) -> None:
    """w -= r·towards / (√squares + delta)."""
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, n.delta)
    torch._foreach_addcdiv_(w, towards, roots, -r)


_RULES: dict[str, Callable[..., None]] = {
    "SGD": sgd,
    "Nesterov": nesterov,
    "AdaGrad": adagrad,
    "RMSProp": rmsprop,
    "AdaDelta": adadelta,
    "Adam": adam,
}
_HISTORIES = {"SGD": 1, "Nesterov": 1, "AdaGrad": 1, "RMSProp": 1, "AdaDelta": 2, "Adam": 2}


def _check(p: SolverParameter, type_: str) -> None:
    """Source: include/caffe/sgd_solvers.hpp constructor_sanity_check; SGDSolver::Regularize."""
    if type_ not in _RULES:
        raise PrototxtGenError(
            f"there is no solver type {type_!r}; there are {', '.join(_RULES)}{nearest(type_, _RULES)}"
        )
    if type_ in ("AdaGrad", "RMSProp") and p.momentum:
        raise PrototxtGenError(f"solver {type_}: it takes no momentum")
    if type_ == "RMSProp" and not 0 <= p.rms_decay < 1:
        raise PrototxtGenError("solver RMSProp: rms_decay must be from 0 to below 1")
    if p.regularization_type not in ("L1", "L2"):
        raise PrototxtGenError(f"regularization_type must be L1 or L2, not {p.regularization_type!r}")
    if p.iter_size < 1:
        raise PrototxtGenError("iter_size must be at least 1")
