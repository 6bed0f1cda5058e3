"""Reader of solver prototxts, and of the train and test nets that a solver names or contains.

Source: src/caffe/solver.cpp Solver::InitTrainNet, Solver::InitTestNets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path

from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.ir import Net
from prototxt_gen.net.batch_size import with_batch_size
from prototxt_gen.net.fork_rules import ForkRules, with_fork_rules
from prototxt_gen.net.prototxt_reader import net_from_tree, read_net, read_prototxt_bytes
from prototxt_gen.schema.caffe_proto import NetState, SolverParameter
from prototxt_gen.text import Field, parse

_INLINE_NETS = {"net_param", "train_net_param", "test_net_param"}
_TYPES = {"SGD": "SGD", "NESTEROV": "Nesterov", "ADAGRAD": "AdaGrad", "RMSPROP": "RMSProp", "ADADELTA": "AdaDelta"}
_SOLVER_FIELDS = {
    "base_lr",
    "lr_policy",
    "max_iter",
    "solver_mode",
    "train_net",
    "net",
    "snapshot_prefix",
    *_INLINE_NETS,
}


def is_solver(tree: Sequence[Field]) -> bool:
    """Return whether a parsed prototxt is a solver rather than a net."""
    names = {item.name for item in tree}
    return not names & {"layer", "layers", "input"} and bool(names & _SOLVER_FIELDS)


@dataclass(frozen=True)
class Solver:
    """A solver: its fields, the nets written inside it as text trees, and the path of its file.

    `train_batch` replaces the batch size of the data layers of the train net.
    """

    params: SolverParameter
    inline_nets: tuple[Field, ...] = ()
    source: str = field(default="", compare=False)
    rules: ForkRules | None = field(default=None, compare=False)
    """Rules that are applied to the nets when they are read; None leaves the nets as they are written."""
    train_batch: int | None = None

    @property
    def type(self) -> str:
        """The type of solver, such as "SGD"; from the deprecated `solver_type` if `type` is not set."""
        if self.params.has("solver_type") and not self.params.has("type"):
            return _TYPES.get(self.params.solver_type, "Adam")
        return self.params.type

    def read_train_net(self) -> Net:
        """Read and return the net of the TRAIN phase. Raises PrototxtError unless the solver has exactly one."""
        fields = [*self._path_field("net"), *self._path_field("train_net")]
        fields += [item for item in self.inline_nets if item.name in ("net_param", "train_net_param")]
        if len(fields) != 1:
            raise PrototxtError(f"{self.source}: it has {len(fields)} train nets; a solver needs exactly one")
        net = self._in_state(self._read_net(fields[0]), self.params.train_state, "TRAIN")
        return net if self.train_batch is None else with_batch_size(net, self.train_batch)

    def read_test_nets(self) -> list[Net]:
        """Read and return the nets of the TEST phase. Raises PrototxtError unless there is one for each test_iter."""
        fields = [item for item in self.inline_nets if item.name == "test_net_param"]
        fields += [Field("test_net", name, 0) for name in self.params.test_net]
        shared = [*self._path_field("net"), *(item for item in self.inline_nets if item.name == "net_param")]
        count = len(self.params.test_iter)
        fields += shared[:1] * max(0, count - len(fields))
        states = self.params.test_state or (NetState(),) * len(fields)
        if len(fields) != count or len(states) != count:
            raise PrototxtError(
                f"{self.source}: {count} test_iter, {len(fields)} test nets and {len(states)} test states; "
                "each test net needs one test_iter and one test state"
            )
        return [
            self._in_state(self._read_net(field), state, "TEST") for field, state in zip(fields, states, strict=True)
        ]

    def _path_field(self, name: str) -> list[Field]:
        return [Field(name, str(getattr(self.params, name)), 0)] if self.params.has(name) else []

    def _read_net(self, field: Field) -> Net:
        if isinstance(field.value, tuple):
            return _net_of_tree(field.value, f"{self.source}, {field.name}")
        path = self.locate(str(field.value))
        if not path.exists():
            raise PrototxtError(
                f"{self.source}: {field.name} {field.value!r} does not exist, neither in the working folder nor "
                "beside the solver"
            )
        return read_net(path)

    def locate(self, name: str) -> Path:
        """Return the path of a file that the solver names, from the working folder or else from the solver's folder."""
        beside = Path(self.source).parent / name
        return beside if not Path(name).exists() and beside.exists() else Path(name)

    def file_not_used(self, name: str) -> Path | None:
        """Return the file beside the solver if `locate` returns another one, in the working folder; else None."""
        used, beside = Path(name), Path(self.source).parent / name
        return beside if used.exists() and beside.exists() and not used.samefile(beside) else None

    def _in_state(self, net: Net, state: NetState, phase: str) -> Net:
        """Return the net in a state: the solver's `state` overrules the net's own, which overrules `phase`."""
        net_state = net.params.state
        phase = state.phase if state.has("phase") else net_state.phase if net_state.has("phase") else phase
        level = state.level if state.has("level") else net_state.level
        phase_net = net.at(phase, (*net_state.stage, *state.stage), level)
        return phase_net if self.rules is None else with_fork_rules(phase_net, self.rules)[0]


def _net_of_tree(tree: Sequence[Field], source: str) -> Net:
    try:
        return net_from_tree(tuple(tree), source)
    except PrototxtError as error:
        raise PrototxtError(f"{source}: {error}", error.line) from None


def read_solver(path: str | PathLike[str]) -> Solver:
    """Read a solver prototxt. Raises PrototxtError, which names the file and line, if it is no solver."""
    source = fspath(path)
    try:
        return solver_from_tree(parse(read_prototxt_bytes(path)), source)
    except PrototxtError as error:
        text = str(error)
        raise PrototxtError(text if text.startswith(source) else f"{source}: {text}", error.line) from None


def solver_from_tree(tree: Sequence[Field], source: str = "") -> Solver:
    """Return the Solver of a parsed SolverParameter."""
    inline_nets = tuple(item for item in tree if item.name in _INLINE_NETS)
    params = SolverParameter.from_text([item for item in tree if item.name not in _INLINE_NETS])
    return replace(Solver(params, inline_nets), source=source)
