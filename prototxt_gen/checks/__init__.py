"""Finding everything that is wrong with a net or a solver. Each rule is a function."""

from prototxt_gen.checks.checker import ERROR, NOTE, WARNING, Problem, Run, broken, check_net, check_solver, runs_of

__all__ = ["ERROR", "NOTE", "WARNING", "Problem", "Run", "broken", "check_net", "check_solver", "runs_of"]
