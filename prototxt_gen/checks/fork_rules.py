"""Rules for layers that forks of Caffe compute in different ways."""

from __future__ import annotations

from collections.abc import Iterator

from prototxt_gen.checks.problem import WARNING, PhaseNet, Problem, layer_problem
from prototxt_gen.net.fork_rules import unclear_layers


def unclear_meanings(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem for each layer that can mean two things, where nothing in the net tells which."""
    for layer, meanings in unclear_layers(phase.analysis):
        yield layer_problem(WARNING, "fork-rule", layer, meanings)


FORK_RULES = (unclear_meanings,)
