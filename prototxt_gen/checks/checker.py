"""check_net and check_solver: apply all rules and return all problems. Each module of rules ends in a tuple of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from prototxt_gen.analysis import analyse
from prototxt_gen.checks.blob_rules import BLOB_RULES
from prototxt_gen.checks.filler_rules import FILLER_RULES
from prototxt_gen.checks.fork_rules import FORK_RULES
from prototxt_gen.checks.in_place_rules import IN_PLACE_RULES
from prototxt_gen.checks.problem import ERROR, NOTE, WARNING, NetFile, PhaseNet, Problem, SolverFile, file_problem
from prototxt_gen.checks.prototxt_rules import PROTOTXT_RULES
from prototxt_gen.checks.solver_rules import SOLVER_RULES, file_exists, missing_data_files
from prototxt_gen.checks.training_rules import TRAINING_RULES
from prototxt_gen.checks.window_rules import WINDOW_RULES
from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.ir import Layer, Net, Shape
from prototxt_gen.net.batch_size import with_batch_size
from prototxt_gen.net.phase_rules import intended_phases
from prototxt_gen.net.prototxt_reader import net_from_tree, read_prototxt_bytes
from prototxt_gen.net.solver import Solver
from prototxt_gen.net.upgrade import Tree
from prototxt_gen.schema.caffe_proto import NetState
from prototxt_gen.text import Field, parse

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

PHASE_NET_RULES = (*BLOB_RULES, *FORK_RULES, *TRAINING_RULES, *IN_PLACE_RULES, *WINDOW_RULES)
STRICT_CODES = frozenset({"unknown-field", "unknown-type", "unknown-form"})
"""Codes of the warnings that become errors with `strict`."""
InputShapes = Callable[[Net], Mapping[str, Shape]]
"""A function from a net of one phase to the shapes of its inputs, by blob."""


def _no_shapes(net: Net) -> Mapping[str, Shape]:
    return {}


class NetMode(NamedTuple):
    """The phase, stages and level that a net is run with, as in Caffe's NetState."""

    phase: str
    stages: tuple[str, ...] = ()
    level: int = 0

    @property
    def name(self) -> str:
        return " ".join((self.phase, *(f"stage {stage}" for stage in self.stages)))


def intended_modes(net: Net, phase: str | None = None, stages: Sequence[str] = (), level: int = 0) -> list[NetMode]:
    """Return the modes that a net is meant to be run in; `phase` and `level` overrule the file, `stages` are added."""
    state = net.params.state
    phases = (phase,) if phase else intended_phases(net.map(_without_conflicting_rules))
    return [NetMode(each, (*state.stage, *stages), level or state.level) for each in phases]


def check_net(
    net: Net,
    tree: Tree = (),
    modes: Sequence[NetMode] = (),
    *,
    strict: bool = False,
    input_shapes: InputShapes = _no_shapes,
    train_batch: int | None = None,
) -> list[Problem]:
    """Return all problems of a net in the given modes, in the order of the file. Default modes: `intended_modes`.

    `tree` is the parsed text of the net. `strict` turns unknown fields and types from warnings into errors.
    `input_shapes` gives shapes of inputs that are not in the file. `train_batch` replaces the batch size of the data
    layers in the TRAIN phase.
    """

    def problems_in(mode: NetMode) -> list[Problem]:
        phase_net = filterable.at(*mode)
        if train_batch is not None and mode.phase == "TRAIN":
            phase_net = with_batch_size(phase_net, train_batch)
        return _phase_problems(mode, phase_net, filterable, input_shapes)

    filterable = net.map(_without_conflicting_rules)
    by_mode = {mode.name: problems_in(mode) for mode in modes or intended_modes(net)}
    return _sorted_by_line([*_prototxt_problems(NetFile(net, tree)), *_merge_modes(by_mode)], strict)


def _without_conflicting_rules(layer: Layer) -> Layer:
    """Return the layer without its exclude rules if it also has include rules, which another rule reports."""
    if not (layer.params.include and layer.params.exclude):
        return layer
    return replace(layer, params=layer.params.replace(exclude=None))


def _prototxt_problems(file: NetFile) -> Iterator[Problem]:
    for rule in (*PROTOTXT_RULES, *FILLER_RULES):
        yield from rule(file)


def _phase_problems(mode: NetMode, net: Net, all_phases: Net, input_shapes: InputShapes) -> list[Problem]:
    phase = PhaseNet(mode.phase, net, analyse(net, input_shapes(net)), all_phases)
    return [problem for rule in PHASE_NET_RULES for problem in rule(phase)]


def _merge_modes(by_mode: Mapping[str, Iterable[Problem]]) -> Iterator[Problem]:
    """Yield each problem once, with the names of the modes that it occurs in, unless it occurs in all."""
    phases: dict[Problem, list[str]] = {}
    for name, problems in by_mode.items():
        for problem in problems:
            phases.setdefault(problem, []).append(name)
    for problem, names in phases.items():
        everywhere = len(set(names)) == len(by_mode)
        yield problem if everywhere else replace(problem, phase=", ".join(dict.fromkeys(names)))


def _sorted_by_line(problems: Iterable[Problem], strict: bool) -> list[Problem]:
    """Return the problems sorted by file and line; with `strict`, those of STRICT_CODES are errors."""
    with_severity = [replace(p, severity=ERROR) if strict and p.code in STRICT_CODES else p for p in problems]
    return sorted(with_severity, key=lambda problem: (problem.source, problem.line))


def check_solver(
    solver: Solver, tree: Tree = (), *, strict: bool = False, input_shapes: InputShapes = _no_shapes
) -> list[Problem]:
    """Return all problems of a solver and of its nets, which are checked in the states that the solver runs them in.

    `tree` is the parsed text of the solver; for `strict` and `input_shapes` see `check_net`.
    """
    file = SolverFile(solver, {field.name: field.line for field in reversed(tree)})
    problems = [problem for rule in SOLVER_RULES for problem in rule(file)]
    states_of: dict[Field, list[NetState]] = {}
    for net_field, state in _nets_and_states(solver):
        states_of.setdefault(net_field, []).append(state)
    net_problems = [
        problem
        for net_field, states in states_of.items()
        for problem in _solver_net_problems(file, net_field, states, strict, input_shapes)
    ]
    return [*_sorted_by_line(problems, strict), *net_problems]


def _nets_and_states(solver: Solver) -> Iterator[tuple[Field, NetState]]:
    """Yield the field of each net of a solver (a path or an inline net) with the state that the net is run in.

    Source: src/caffe/solver.cpp Solver::InitTestNets.
    """
    p, inline = solver.params, solver.inline_nets
    shared = [Field("net", name, 0) for name in (p.net,) if name] + [f for f in inline if f.name == "net_param"]
    train = [Field("train_net", name, 0) for name in (p.train_net,) if name]
    train += [field for field in inline if field.name == "train_net_param"]
    tests = [field for field in inline if field.name == "test_net_param"]
    tests += [Field("test_net", name, 0) for name in p.test_net]
    tests += shared[:1] * (len(p.test_iter) - len(tests))
    for net_field in (*shared, *train):
        yield net_field, _with_phase(p.train_state, "TRAIN")
    for index, net_field in enumerate(tests):
        yield net_field, _with_phase(p.test_state[index] if index < len(p.test_state) else NetState(), "TEST")


def _with_phase(state: NetState, phase: str) -> NetState:
    return state if state.has("phase") else state.replace(phase=phase)


def _solver_net_problems(
    file: SolverFile, net_field: Field, states: Sequence[NetState], strict: bool, input_shapes: InputShapes
) -> Iterator[Problem]:
    """Yield the problems of one net of a solver; `source` of each problem is the file of the net."""
    source = str(file.solver.locate(net_field.value)) if isinstance(net_field.value, str) else net_field.name
    if isinstance(net_field.value, str) and not file_exists(file, net_field.value):
        message = f"{net_field.name} {net_field.value!r} does not exist, so it was not checked"
        yield file.problem(ERROR, "missing-file", net_field.name, message)
        return
    try:
        tree = net_field.value if isinstance(net_field.value, tuple) else parse(read_prototxt_bytes(source))
        net = net_from_tree(tree, source)
    except PrototxtError as error:
        yield replace(unreadable_problem(error, source), source=source)
        return
    modes = [NetMode(s.phase, (*net.params.state.stage, *s.stage), s.level or net.params.state.level) for s in states]
    batch = file.solver.train_batch
    problems = check_net(net, tree, modes, strict=strict, input_shapes=input_shapes, train_batch=batch)
    for problem in (*problems, *missing_data_files(file, net)):
        yield replace(problem, source=source)


def unreadable_problem(error: PrototxtError, source: str) -> Problem:
    """Return the problem for a file that cannot be parsed."""
    message = str(error).removeprefix(f"{source}: ").removeprefix(f"line {error.line}: ")
    return file_problem(ERROR, "not-readable", message, error.line)
