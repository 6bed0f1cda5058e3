"""Caffe's six solver types (SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam) on lists of tensors.

One update follows SGDSolver::ApplyUpdate (src/caffe/solvers/sgd_solver.cpp): clip the gradients by their common norm,
divide by iter_size, add the weight decay, then apply the solver's rule. In the rules, w are the weights, g the
gradients, h and k the histories, and r the learning rate times lr_mult.

AdaGrad, RMSProp and AdaDelta equal those of torch.optim. SGD and Nesterov do not (in torch.optim a changed learning
rate also scales past gradients), nor does Adam (delta is added elsewhere). All are implemented here in one form because
their histories must be stored in a .solverstate in Caffe's order and meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prototxt_gen.common.errors import PrototxtGenError, nearest
from prototxt_gen.schema.caffe_proto import SolverParameter
from prototxt_gen.train.lr_policies import as_float32

Tensors = list[Tensor]


@dataclass(frozen=True)
class Hyperparameters:
    """The solver's hyperparameters, rounded to float32 as in Caffe, and the number of the update, from 1."""

    momentum: float
    momentum2: float
    rms_decay: float
    delta: float
    update: int = 0

    @classmethod
    def of(cls, p: SolverParameter, update: int) -> Hyperparameters:
        """Return the hyperparameters of a solver for an update."""
        momentum, momentum2, rms_decay, delta = map(as_float32, (p.momentum, p.momentum2, p.rms_decay, p.delta))
        return cls(momentum, momentum2, rms_decay, delta, update)


@dataclass(frozen=True)
class LearnedTensor:
    """A parameter tensor that is learned, with its multipliers."""

    parameter: Tensor
    lr_mult: float = 1.0
    decay_mult: float = 1.0


@dataclass(frozen=True)
class _Group:
    """Learned tensors with equal multipliers, updated together: indices in the optimiser, weights and histories."""

    lr_mult: float
    decay_mult: float
    indices: list[int]
    weights: Tensors
    histories: tuple[Tensors, ...]


class Optimiser:
    """Updates tensors as a Caffe solver does. `histories[k][i]` is history k of learned tensor i, with its layout.

    Raises PrototxtGenError for an unknown solver type or regularization_type, and for momentum in AdaGrad or RMSProp.
    """

    def __init__(self, params: SolverParameter, solver_type: str, learned_tensors: Sequence[LearnedTensor]) -> None:
        _check(params, solver_type)
        self.params, self.learned_tensors = params, list(learned_tensors)
        self.histories = [
            [torch.zeros_like(tensor.parameter, requires_grad=False) for tensor in learned_tensors]
            for _ in range(_HISTORIES[solver_type])
        ]
        self._rule = _RULES[solver_type]
        self._groups = self._make_groups()

    def _make_groups(self) -> list[_Group]:
        indices: dict[tuple[float, float], list[int]] = {}
        for index, tensor in enumerate(self.learned_tensors):
            indices.setdefault((as_float32(tensor.lr_mult), as_float32(tensor.decay_mult)), []).append(index)
        return [
            _Group(
                *multipliers,
                found,
                [self.learned_tensors[index].parameter for index in found],
                tuple([history[index] for index in found] for history in self.histories),
            )
            for multipliers, found in indices.items()
        ]

    @torch.no_grad()
    def update(self, rate: float, iteration: int) -> None:
        """Apply update number `iteration`, counted from 0, with the gradients summed over iter_size batches.

        The gradients are modified. A parameter without a gradient counts as having zeros: it still decays, as in Caffe.
        """
        gradients = [_gradient(tensor.parameter) for tensor in self.learned_tensors]
        if not gradients:
            return
        if self.params.clip_gradients >= 0:
            clip_gradients(gradients, as_float32(self.params.clip_gradients))
        if self.params.iter_size > 1:
            torch._foreach_mul_(gradients, 1 / self.params.iter_size)
        hyperparameters = Hyperparameters.of(self.params, iteration + 1)
        for group in self._groups:
            group_gradients = [gradients[index] for index in group.indices]
            self._decay(group, group_gradients)
            self._rule(
                group.weights, group_gradients, *group.histories, r=as_float32(rate * group.lr_mult), n=hyperparameters
            )

    def _decay(self, group: _Group, gradients: Tensors) -> None:
        """Add the weight decay to the gradients. Source: SGDSolver::Regularize."""
        decay = as_float32(self.params.weight_decay) * group.decay_mult
        if decay:
            added = group.weights if self.params.regularization_type == "L2" else torch._foreach_sign(group.weights)
            torch._foreach_add_(gradients, added, alpha=decay)


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def clip_gradients(gradients: Tensors, max_norm: float) -> None:
    """Scale the gradients so that their common L2 norm is at most `max_norm`. Source: SGDSolver::ClipGradients."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, torch.where(norm > max_norm, max_norm / norm, 1.0))


def sgd(w: Tensors, g: Tensors, h: Tensors, r: float, n: Hyperparameters) -> None:
    """h = momentum·h + r·g; w -= h. Source: sgd_solver.cpp SGDSolver::ComputeUpdateValue."""
    torch._foreach_mul_(h, n.momentum)
    torch._foreach_add_(h, g, alpha=r)
    torch._foreach_sub_(w, h)


def nesterov(w: Tensors, g: Tensors, h: Tensors, r: float, n: Hyperparameters) -> None:
    """h' = momentum·h + r·g; w -= (1 + momentum)·h' - momentum·h. Source: nesterov_solver.cpp ComputeUpdateValue."""
    change = torch._foreach_mul(h, -n.momentum)
    torch._foreach_mul_(h, n.momentum)
    torch._foreach_add_(h, g, alpha=r)
    torch._foreach_add_(change, h, alpha=1 + n.momentum)
    torch._foreach_sub_(w, change)


def adagrad(w: Tensors, g: Tensors, h: Tensors, r: float, n: Hyperparameters) -> None:
    """h += g²; w -= r·g / (√h + delta). Source: adagrad_solver.cpp ComputeUpdateValue."""
    torch._foreach_addcmul_(h, g, g)
    _scaled_step(w, g, h, r, n)


def rmsprop(w: Tensors, g: Tensors, h: Tensors, r: float, n: Hyperparameters) -> None:
    """h = rms_decay·h + (1 - rms_decay)·g²; w -= r·g / (√h + delta). Source: rmsprop_solver.cpp ComputeUpdateValue."""
    torch._foreach_mul_(h, n.rms_decay)
    torch._foreach_addcmul_(h, g, g, 1 - n.rms_decay)
    _scaled_step(w, g, h, r, n)


def adadelta(w: Tensors, g: Tensors, h: Tensors, k: Tensors, r: float, n: Hyperparameters) -> None:
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


def adam(w: Tensors, g: Tensors, h: Tensors, k: Tensors, r: float, n: Hyperparameters) -> None:
    """h = momentum·h + (1 - momentum)·g; k = momentum2·k + (1 - momentum2)·g²; w -= r·c·h / (√k + delta).

    c = √(1 - momentum2^t) / (1 - momentum^t) at update t, from 1. Source: adam_solver.cpp ComputeUpdateValue.
    """
    torch._foreach_mul_(h, n.momentum)
    torch._foreach_add_(h, g, alpha=1 - n.momentum)
    torch._foreach_mul_(k, n.momentum2)
    torch._foreach_addcmul_(k, g, g, 1 - n.momentum2)
    correction = math.sqrt(1 - n.momentum2**n.update) / (1 - n.momentum**n.update)
    _scaled_step(w, h, k, as_float32(r * as_float32(correction)), n)


def _scaled_step(w: Tensors, numerators: Tensors, squares: Tensors, r: float, n: Hyperparameters) -> None:
    """w -= r·numerators / (√squares + delta)."""
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, n.delta)
    torch._foreach_addcdiv_(w, numerators, roots, -r)


_RULES: dict[str, Callable[..., None]] = {
    "SGD": sgd,
    "Nesterov": nesterov,
    "AdaGrad": adagrad,
    "RMSProp": rmsprop,
    "AdaDelta": adadelta,
    "Adam": adam,
}
_HISTORIES = {"SGD": 1, "Nesterov": 1, "AdaGrad": 1, "RMSProp": 1, "AdaDelta": 2, "Adam": 2}


def _check(p: SolverParameter, solver_type: str) -> None:
    """Raise PrototxtGenError for invalid fields.

    Source: include/caffe/sgd_solvers.hpp constructor_sanity_check; SGDSolver::Regularize.
    """
    if solver_type not in _RULES:
        raise PrototxtGenError(
            f"there is no solver type {solver_type!r}; there are {', '.join(_RULES)}{nearest(solver_type, _RULES)}"
        )
    if solver_type in ("AdaGrad", "RMSProp") and p.momentum:
        raise PrototxtGenError(f"solver {solver_type}: it takes no momentum")
    if solver_type == "RMSProp" and not 0 <= p.rms_decay < 1:
        raise PrototxtGenError("solver RMSProp: rms_decay must be from 0 to below 1")
    if p.regularization_type not in ("L1", "L2"):
        raise PrototxtGenError(f"regularization_type must be L1 or L2, not {p.regularization_type!r}")
    if p.iter_size < 1:
        raise PrototxtGenError("iter_size must be at least 1")
