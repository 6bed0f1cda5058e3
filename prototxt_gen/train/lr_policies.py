"""Learning-rate policies of Caffe's solvers (lr_policy), in Caffe's float32 arithmetic.

Source: src/caffe/solvers/sgd_solver.cpp SGDSolver::GetLearningRate.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from prototxt_gen.common.errors import PrototxtGenError, nearest
from prototxt_gen.schema.caffe_proto import SolverParameter


def as_float32(number: float) -> float:
    """Return the number rounded to float32, the type of all float fields of a Caffe solver."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


class LearningRatePolicy:
    """The learning rate of each iteration.

    `current_step` is the number of decreases so far under the policies step and multistep (Caffe's current_step_).
    Raises PrototxtGenError for an unknown policy or invalid fields.
    """

    def __init__(self, params: SolverParameter) -> None:
        if params.lr_policy not in _RATES:
            known = f"there are {', '.join(_RATES)}{nearest(params.lr_policy, _RATES)}"
            raise PrototxtGenError(f"there is no lr_policy {params.lr_policy!r}; {known}")
        _check(params)
        self.params = params
        self.base, self.gamma, self.power = map(as_float32, (params.base_lr, params.gamma, params.power))
        self.current_step = 0
        self._rate = _RATES[params.lr_policy]

    def rate(self, iteration: int) -> float:
        """Return the rate of an iteration, counted from 0. Call it once per iteration, in order (see current_step)."""
        return as_float32(self.base * self._rate(self, iteration))

    def fixed(self, iteration: int) -> float:
        """base_lr, unchanged."""
        return 1.0

    def steps(self, iteration: int) -> float:
        """base_lr · gamma^(iteration / stepsize), with integer division."""
        self.current_step = iteration // self.params.stepsize
        return self.gamma**self.current_step

    def exp(self, iteration: int) -> float:
        """base_lr · gamma^iteration."""
        return self.gamma**iteration

    def inv(self, iteration: int) -> float:
        """base_lr · (1 + gamma · iteration)^-power."""
        return float((1 + self.gamma * iteration) ** -self.power)

    def multistep(self, iteration: int) -> float:
        """base_lr, multiplied by gamma at each stepvalue, at most once per iteration."""
        values = self.params.stepvalue
        if self.current_step < len(values) and iteration >= values[self.current_step]:
            self.current_step += 1
        return self.gamma**self.current_step

    def poly(self, iteration: int) -> float:
        """base_lr · (1 - iteration / max_iter)^power."""
        return float(max(0.0, 1 - iteration / self.params.max_iter) ** self.power)

    def sigmoid(self, iteration: int) -> float:
        """base_lr / (1 + e^(-gamma · (iteration - stepsize)))."""
        return _logistic(self.gamma * (iteration - self.params.stepsize))


_RATES: dict[str, Callable[[LearningRatePolicy, int], float]] = {
    "fixed": LearningRatePolicy.fixed,
    "step": LearningRatePolicy.steps,
    "exp": LearningRatePolicy.exp,
    "inv": LearningRatePolicy.inv,
    "multistep": LearningRatePolicy.multistep,
    "poly": LearningRatePolicy.poly,
    "sigmoid": LearningRatePolicy.sigmoid,
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
    for problem, applies in problems.items():
        if applies:
            raise PrototxtGenError(f"lr_policy {policy!r}: {problem}")
