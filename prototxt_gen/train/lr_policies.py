"""How the learning rate goes down: the policies of Caffe's solvers, in its arithmetic.

Source: src/caffe/solvers/sgd_solver.cpp SGDSolver::GetLearningRate.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from prototxt_gen.common.errors import PrototxtGenError, nearest
from prototxt_gen.schema.caffe_proto import SolverParameter


def single(number: float) -> float:
    """Return the number rounded to float32, as Caffe holds every field of a solver."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


class Policy:
    """The learning rate of each iteration. `step` is how often a policy of steps has gone down, Caffe's current_step_.

    Raises PrototxtGenError for a policy that is not known, or fields that it cannot work with.
    """

    def __init__(self, params: SolverParameter) -> None:
        if params.lr_policy not in _RATES:
            known = f"there are {', '.join(_RATES)}{nearest(params.lr_policy, _RATES)}"
            raise PrototxtGenError(f"there is no lr_policy {params.lr_policy!r}; {known}")
        _check(params)
        self.params = params
        self.base, self.gamma, self.power = map(single, (params.base_lr, params.gamma, params.power))
        self.step = 0
        self._rate = _RATES[params.lr_policy]

    def rate(self, iteration: int) -> float:
        """Return the rate of an iteration, counted from 0; to be asked for once each, in order: steps are counted."""
        return single(self.base * self._rate(self, iteration))

    def fixed(self, iteration: int) -> float:
        """base_lr."""
        return 1.0

    def steps(self, iteration: int) -> float:
        """Times gamma at every multiple of stepsize."""
        self.step = iteration // self.params.stepsize
        return self.gamma**self.step

    def exp(self, iteration: int) -> float:
        """Times gamma each time."""
        return self.gamma**iteration

    def inv(self, iteration: int) -> float:
        """base_lr · (1 + gamma · iteration)^-power."""
        return float((1 + self.gamma * iteration) ** -self.power)

    def multistep(self, iteration: int) -> float:
        """Times gamma at each stepvalue; at most once an iteration, whatever the values are."""
        values = self.params.stepvalue
        if self.step < len(values) and iteration >= values[self.step]:
            self.step += 1
        return self.gamma**self.step

    def poly(self, iteration: int) -> float:
        """base_lr · (1 - iteration / max_iter)^power."""
        return float(max(0.0, 1 - iteration / self.params.max_iter) ** self.power)

    def sigmoid(self, iteration: int) -> float:
        """base_lr / (1 + e^(-gamma · (iteration - stepsize)))."""
        return _logistic(self.gamma * (iteration - self.params.stepsize))


_RATES: dict[str, Callable[[Policy, int], float]] = {
    "fixed": Policy.fixed,
    "step": Policy.steps,
    "exp": Policy.exp,
    "inv": Policy.inv,
    "multistep": Policy.multistep,
    "poly": Policy.poly,
    "sigmoid": Policy.sigmoid,
}


def _logistic(x: float) -> float:
    """Return 1 / (1 + e^-x), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _check(params: SolverParameter) -> None:
    policy = params.lr_policy
    problems = {
        "stepsize must be above 0": policy in ("step", "sigmoid") and params.stepsize <= 0,
        "gamma must not be below 0": policy not in ("fixed", "poly") and params.gamma < 0,
        "max_iter must be above 0": policy == "poly" and params.max_iter <= 0,
    }
    for problem, there in problems.items():
        if there:
            raise PrototxtGenError(f"lr_policy {policy!r}: {problem}")
