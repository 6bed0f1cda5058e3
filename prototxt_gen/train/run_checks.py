"""The checks before a training run: those of `prototxt-gen check`, with the shapes of the data, and the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from prototxt_gen.analysis import analyse
from prototxt_gen.checks import ERROR, WARNING, Problem, check_solver
from prototxt_gen.checks.problem_lines import problem_lines
from prototxt_gen.common.errors import NetError, PrototxtGenError
from prototxt_gen.ir import Layer, Net, Shape
from prototxt_gen.net.phase_rules import is_loss, is_source_layer
from prototxt_gen.net.prototxt_reader import read_prototxt_bytes
from prototxt_gen.net.solver import Solver
from prototxt_gen.text import parse
from prototxt_gen.train import memory_estimate
from prototxt_gen.train.backend import Settings
from prototxt_gen.train.data_shapes import batch_size, data_shapes

Echo = Callable[[str], None]
_TORCH_DEFAULTS = {"precision": "fp32", "compile": False, "memory_efficient": False, "sync_bn": False}
"""Settings that only the PyTorch backend has, with the values that pycaffe accepts."""
_FIELDS_WITHOUT_EFFECT = {
    "debug_info": "neither backend prints Caffe's debug information",
    "test_compute_loss": "tests report the outputs of the test net, of which the loss is one",
    "snapshot_diff": "snapshots hold no gradients",
}
"""Solver fields that training ignores if they are true, with the reason."""
_PREFIX_CODES = ("home-folder",)
"""Codes of the errors about the folder of snapshot_prefix, which --output replaces."""


def check_run(solver: Solver, backend: str, settings: Settings, out: Path | None, echo: Echo) -> int:
    """Check solver, nets, data and settings; echo warnings and the memory estimate; return the images per iteration.

    `out` is the output folder, if it is not that of snapshot_prefix. Raises PrototxtGenError for every error.
    """
    _refuse_settings_of_torch(backend, settings)
    shapes = _DataShapes(solver)
    net, tests = solver.read_train_net(), solver.read_test_nets()
    tree = parse(read_prototxt_bytes(solver.source)) if Path(solver.source).is_file() else ()
    problems = check_solver(solver, tree, input_shapes=shapes.of_net)
    if out is not None:
        problems = [problem for problem in problems if problem.code not in _PREFIX_CODES]
    _raise_errors(solver, problems)
    for line in (*_warning_lines(solver, problems), *_ignored_fields(solver)):
        echo(line)
    if not any(map(is_loss, net.layers)):
        raise NetError(f"{net.source or net.name}: it has no loss in phase TRAIN, so there is nothing to train")
    batch = batch_size(net, shapes.of_net(net))
    analyses = [analyse(each, shapes.of_net(each)) for each in (net, *tests)]
    estimate = memory_estimate.estimate_memory(analyses[0], analyses[1:], solver.type, batch)
    if settings.gpu is None and batch:
        echo(estimate.sentence(memory_estimate.free_memory()))
    return batch * solver.params.iter_size


class _DataShapes:
    """The shapes of the tops of data layers; each net's data sets are read once."""

    def __init__(self, solver: Solver) -> None:
        self.solver = solver
        self._shapes: dict[tuple[Layer, ...], dict[str, Shape]] = {}

    def of_net(self, net: Net) -> dict[str, Shape]:
        """Return the shapes for a net of one phase, by blob."""
        layers = tuple(filter(is_source_layer, net.layers))
        if layers not in self._shapes:
            self._shapes[layers] = data_shapes(net, self.solver.locate)
        return self._shapes[layers]


def _refuse_settings_of_torch(backend: str, settings: Settings) -> None:
    """Raise PrototxtGenError for a setting that only PyTorch has, if the backend is pycaffe."""
    for name, value in _TORCH_DEFAULTS.items():
        asked = getattr(settings, name)
        if backend == "pycaffe" and asked != value:
            option = f"--{name.replace('_', '-')}{'' if asked is True else f' {asked}'}"
            raise PrototxtGenError(f"backend pycaffe has no {option}: only backend torch has it")


def _raise_errors(solver: Solver, problems: list[Problem]) -> None:
    errors = [problem for problem in problems if problem.severity == ERROR]
    if errors:
        lines = (f"{problem.source}: {problem}" if problem.source else str(problem) for problem in errors)
        raise PrototxtGenError("\n  ".join([f"{solver.source} cannot be trained:", *lines]))


def _warning_lines(solver: Solver, problems: list[Problem]) -> Iterator[str]:
    """Yield a line for each warning, with its file. The folder of the snapshots need not exist: training makes it."""
    warnings = (problem for problem in problems if problem.severity == WARNING and problem.code != "missing-folder")
    return problem_lines((replace(warning, source=warning.source or solver.source) for warning in warnings), Path())


def _ignored_fields(solver: Solver) -> Iterator[str]:
    """Yield a warning for each field that has no effect here, and then the file of each net."""
    for name, reason in _FIELDS_WITHOUT_EFFECT.items():
        if getattr(solver.params, name):
            yield f"warning: {solver.source}: {name} has no effect: {reason}"
    nets = {net.source: net for net in (solver.read_train_net(), *solver.read_test_nets())}
    for source, net in nets.items():
        if net.params.debug_info:
            yield f"warning: {source}: debug_info has no effect: {_FIELDS_WITHOUT_EFFECT['debug_info']}"
        yield f"net: {source or net.name}"
