"""Checks of nets and solvers: `check_net` and `check_solver` return all problems. Each rule is a function."""

from prototxt_gen.checks.checker import (
    ERROR,
    NOTE,
    WARNING,
    NetMode,
    Problem,
    check_net,
    check_solver,
    intended_modes,
    unreadable_problem,
)

__all__ = [
    "ERROR",
    "NOTE",
    "WARNING",
    "NetMode",
    "Problem",
    "check_net",
    "check_solver",
    "intended_modes",
    "unreadable_problem",
]
