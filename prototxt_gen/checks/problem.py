"""What a check finds, and what it looks at."""

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
"""Caffe would refuse it or compute something else; it may not be meant; something could not be checked."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `line` is 0 where no line is to blame; `phase` is empty where it holds in each phase.

    `message` says what is wrong with the layer, or with the file where `layer` and `type` are empty.
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


def of_layer(severity: str, code: str, layer: Layer, message: str, line: int = 0) -> Problem:
    return Problem(severity, code, layer.name, layer.type, line or layer.line, message)


def of_file(severity: str, code: str, message: str, line: int = 0) -> Problem:
    return Problem(severity, code, "", "", line, message)


@dataclass(frozen=True)
class Whole:
    """A net file: its tree as it was parsed, and the net of all phases."""

    net: Net
    tree: Tree = ()


@dataclass(frozen=True)
class Phase:
    """One phase of a net, with its analysis."""

    name: str
    net: Net
    analysis: Analysis
    whole: Net

    @cached_property
    def trains(self) -> bool:
        """Whether the solver learns here."""
        return self.name == "TRAIN" and any(map(is_loss, self.net.layers))

    @cached_property
    def makers(self) -> Mapping[Value, Layer]:
        """The layer that makes each value."""
        return {top: layer for layer in self.net.layers for top in layer.tops}

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.analysis.rows


@dataclass(frozen=True)
class SolverFile:
    """A solver, and the line of each of its fields."""

    solver: Solver
    lines: Mapping[str, int] = field(default_factory=dict)

    def problem(self, severity: str, code: str, name: str, message: str) -> Problem:
        """Return a problem with the field of this name."""
        return of_file(severity, code, message, self.lines.get(name, 0))

    def get(self, name: str) -> Any:
        """Return a field's value, or its default."""
        return getattr(self.solver.params, name)

    def has(self, name: str) -> bool:
        return self.solver.params.has(name)
