"""Problem (one finding of a check), and the inputs of the rules: a net file, a net of one phase, a solver file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.ir import Layer, Net, Value
from prototxt_gen.net.phase_rules import is_loss
from prototxt_gen.net.solver import Solver
from prototxt_gen.net.upgrade import Tree

ERROR, WARNING, NOTE = "error", "warning", "note"
"""Severities. Error: Caffe refuses it or computes something else. Warning: perhaps a mistake. Note: not checked."""


@dataclass(frozen=True)
class Problem:
    """One finding of a check.

    `code` is a short name of the rule. `layer` and `type` are empty if the problem concerns the whole file. `line` is 0
    if the problem has no line. `phase` is empty if the problem occurs in all phases. `source` is the file of the net,
    for problems of the nets of a solver.
    """

    severity: str
    code: str
    layer: str
    type: str
    line: int
    message: str
    phase: str = ""
    source: str = ""

    def __str__(self) -> str:
        line = f"line {self.line}: " if self.line else ""
        layer = f"layer {self.layer!r} ({self.type}): " if self.layer or self.type else ""
        return f"{line}{layer}{self.message}{f' [{self.phase}]' if self.phase else ''}"


def layer_problem(severity: str, code: str, layer: Layer, message: str, line: int = 0) -> Problem:
    """Return a problem of one layer. Default `line`: the line where the layer begins."""
    return Problem(severity, code, layer.name, layer.type, line or layer.line, message)


def file_problem(severity: str, code: str, message: str, line: int = 0) -> Problem:
    """Return a problem that concerns the whole file."""
    return Problem(severity, code, "", "", line, message)


@dataclass(frozen=True)
class NetFile:
    """A net file: the net with the layers of all phases, and the parsed text."""

    net: Net
    tree: Tree = ()


@dataclass(frozen=True)
class PhaseNet:
    """The net of one phase with its analysis. `all_phases` is the net with the layers of all phases."""

    name: str
    net: Net
    analysis: Analysis
    all_phases: Net

    @cached_property
    def is_training(self) -> bool:
        """Whether the solver learns in this phase: TRAIN, with a loss."""
        return self.name == "TRAIN" and any(map(is_loss, self.net.layers))

    @cached_property
    def layer_of_top(self) -> Mapping[Value, Layer]:
        """The layer that writes each value."""
        return {top: layer for layer in self.net.layers for top in layer.tops}

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.analysis.rows


@dataclass(frozen=True)
class SolverFile:
    """A solver, with the line number of each of its fields."""

    solver: Solver
    lines: Mapping[str, int] = field(default_factory=dict)

    def problem(self, severity: str, code: str, name: str, message: str) -> Problem:
        """Return a problem of the solver field `name`, with the line of the field."""
        return file_problem(severity, code, message, self.lines.get(name, 0))

    def get(self, name: str) -> Any:
        """Return the value of a field, or its default."""
        return getattr(self.solver.params, name)

    def has(self, name: str) -> bool:
        return self.solver.params.has(name)
