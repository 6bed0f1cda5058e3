"""Everything that is wrong with a net or a solver, at once. A rule is a function in the tuple of its module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from prototxt_gen.analysis import analyse
from prototxt_gen.checks.blob_rules import BLOB_RULES
from prototxt_gen.checks.in_place_rules import GRADIENT_RULES
from prototxt_gen.checks.problem import ERROR, NOTE, WARNING, Phase, Problem, SolverFile, Whole, of_file
from prototxt_gen.checks.prototxt_rules import FILE_RULES
from prototxt_gen.checks.solver_rules import SOLVER_RULES, exists, missing_data
from prototxt_gen.checks.training_rules import TRAINING_RULES
from prototxt_gen.checks.window_rules import WINDOW_RULES
from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.ir import Layer, Net, Shape
from prototxt_gen.net.phase_rules import phases_of
from prototxt_gen.net.prototxt_reader import net_from_tree, read_text
from prototxt_gen.net.solver import Solver
from prototxt_gen.net.upgrade import Tree
from prototxt_gen.schema.caffe_proto import NetState
from prototxt_gen.text import Field, parse

__all__ = ["ERROR", "NOTE", "WARNING", "Problem", "Run", "broken", "check_net", "check_solver", "runs_of"]

PHASE_RULES = (*BLOB_RULES, *TRAINING_RULES, *GRADIENT_RULES, *WINDOW_RULES)
STRICT = frozenset({"unknown-field", "unknown-type"})
"""Warnings that `strict` makes errors."""
Given = Callable[[Net], Mapping[str, Shape]]
"""Says for a net of one phase which shapes its inputs have."""


def _nothing(net: Net) -> Mapping[str, Shape]:
    return {}


class Run(NamedTuple):
    """A way to run a net: its phase, stages and level."""

    phase: str
    stages: tuple[str, ...] = ()
    level: int = 0

    @property
    def name(self) -> str:
        return " ".join((self.phase, *(f"stage {stage}" for stage in self.stages)))


def runs_of(net: Net, phase: str | None = None, stages: Sequence[str] = (), level: int = 0) -> list[Run]:
    """Return the ways a net is meant to be run; phase and level go before what the file says."""
    state = net.params.state
    phases = (phase,) if phase else phases_of(net.map(_with_one_kind_of_rules))
    return [Run(one, (*state.stage, *stages), level or state.level) for one in phases]


def check_net(
    net: Net, tree: Tree = (), runs: Sequence[Run] = (), *, strict: bool = False, given: Given = _nothing
) -> list[Problem]:
    """Return what is wrong with a net as read, in these runs or those it is meant for, in the order of the file.

    `tree` is the net's text as parsed; `strict` makes errors of unknown fields and types; `given` says shapes.
    """
    sound = net.map(_with_one_kind_of_rules)
    in_runs = {run.name: _of_run(run, sound, given) for run in runs or runs_of(net)}
    return _finished([*_of_file(Whole(net, tree)), *_merged(in_runs)], strict)


def _with_one_kind_of_rules(layer: Layer) -> Layer:
    """Leave out the exclude rules where there are include rules too, which a rule of its own reports."""
    if not (layer.params.include and layer.params.exclude):
        return layer
    return replace(layer, params=layer.params.replace(exclude=None))


def _of_file(file: Whole) -> Iterator[Problem]:
    for rule in FILE_RULES:
        yield from rule(file)


def _of_run(run: Run, whole: Net, given: Given) -> list[Problem]:
    net = whole.at(*run)
    phase = Phase(run.phase, net, analyse(net, given(net)), whole)
    return [problem for rule in PHASE_RULES for problem in rule(phase)]


def _merged(found: Mapping[str, Iterable[Problem]]) -> Iterator[Problem]:
    """Yield each problem once, with the phases it holds in unless it holds in all."""
    phases: dict[Problem, list[str]] = {}
    for name, problems in found.items():
        for problem in problems:
            phases.setdefault(problem, []).append(name)
    for problem, names in phases.items():
        everywhere = len(set(names)) == len(found)
        yield problem if everywhere else replace(problem, phase=", ".join(dict.fromkeys(names)))


def _finished(found: Iterable[Problem], strict: bool) -> list[Problem]:
    """Sort by line, and raise the severity where asked to."""
    raised = [replace(p, severity=ERROR) if strict and p.code in STRICT else p for p in found]
    return sorted(raised, key=lambda problem: (problem.source, problem.line))


def check_solver(solver: Solver, tree: Tree = (), *, strict: bool = False, given: Given = _nothing) -> list[Problem]:
    """Return what is wrong with a solver, and with the nets that it holds or names, each as it is run."""
    file = SolverFile(solver, {field.name: field.line for field in reversed(tree)})
    found = [problem for rule in SOLVER_RULES for problem in rule(file)]
    runs: dict[Field, list[NetState]] = {}
    for place, state in _runs(solver):
        runs.setdefault(place, []).append(state)
    nets = [problem for place, states in runs.items() for problem in _of_place(file, place, states, strict, given)]
    return [*_finished(found, strict), *nets]


def _runs(solver: Solver) -> Iterator[tuple[Field, NetState]]:
    """Yield each net of a solver with the state it is run in. Source: src/caffe/solver.cpp Solver::InitTestNets."""
    p, inline = solver.params, solver.inline
    shared = [Field("net", name, 0) for name in (p.net,) if name] + [f for f in inline if f.name == "net_param"]
    train = [Field("train_net", name, 0) for name in (p.train_net,) if name]
    train += [field for field in inline if field.name == "train_net_param"]
    tests = [field for field in inline if field.name == "test_net_param"]
    tests += [Field("test_net", name, 0) for name in p.test_net]
    tests += shared[:1] * (len(p.test_iter) - len(tests))
    for place in (*shared, *train):
        yield place, _in(p.train_state, "TRAIN")
    for index, place in enumerate(tests):
        yield place, _in(p.test_state[index] if index < len(p.test_state) else NetState(), "TEST")


def _in(state: NetState, phase: str) -> NetState:
    return state if state.has("phase") else state.replace(phase=phase)


def _of_place(
    file: SolverFile, place: Field, states: Sequence[NetState], strict: bool, given: Given
) -> Iterator[Problem]:
    """Check one net of a solver."""
    source = str(file.solver.locate(place.value)) if isinstance(place.value, str) else place.name
    if isinstance(place.value, str) and not exists(file, place.value):
        message = f"{place.name} {place.value!r} is not there, so it was not checked"
        yield file.problem(WARNING, "missing-file", place.name, message)
        return
    try:
        tree = place.value if isinstance(place.value, tuple) else parse(read_text(source))
        net = net_from_tree(tree, source)
    except PrototxtError as error:
        yield replace(broken(error, source), source=source)
        return
    runs = [Run(s.phase, (*net.params.state.stage, *s.stage), s.level or net.params.state.level) for s in states]
    for problem in (*check_net(net, tree, runs, strict=strict, given=given), *missing_data(file, net)):
        yield replace(problem, source=source)


def broken(error: PrototxtError, source: str) -> Problem:
    """Return the problem with a file that cannot be read."""
    message = str(error).removeprefix(f"{source}: ").removeprefix(f"line {error.line}: ")
    return of_file(ERROR, "not-readable", message, error.line)
