"""Solver prototxts: their fields, and the nets they hold or name.

Source: src/caffe/solver.cpp Solver::InitTrainNet, Solver::InitTestNets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path

from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.ir import Net
from prototxt_gen.net.prototxt_reader import net_from_tree, read, read_text
from prototxt_gen.schema.caffe_proto import NetState, SolverParameter
from prototxt_gen.text import Field, parse

_INLINE = {"net_param", "train_net_param", "test_net_param"}
_TYPES = {"SGD": "SGD", "NESTEROV": "Nesterov", "ADAGRAD": "AdaGrad", "RMSPROP": "RMSProp", "ADADELTA": "AdaDelta"}
_TELLING = {"base_lr", "lr_policy", "max_iter", "solver_mode", "train_net", "net", "snapshot_prefix", *_INLINE}


def is_solver(tree: Sequence[Field]) -> bool:
    """Whether a parsed prototxt is a solver rather than a net."""
    names = {item.name for item in tree}
    return not names & {"layer", "layers", "input"} and bool(names & _TELLING)


@dataclass(frozen=True)
class Solver:
    """A solver: its fields, its inline nets as text trees, and the file it was read from."""

    params: SolverParameter
    inline: tuple[Field, ...] = ()
    source: str = field(default="", compare=False)

    @property
    def type(self) -> str:
        """The solver's name; the deprecated `solver_type` counts where `type` is not set."""
        if self.params.has("solver_type") and not self.params.has("type"):
            return _TYPES.get(self.params.solver_type, "Adam")
        return self.params.type

    def train_net(self) -> Net:
        """Return the net of the TRAIN phase, of which a solver gives exactly one."""
        places = [*self._named("net"), *self._named("train_net")]
        places += [item for item in self.inline if item.name in ("net_param", "train_net_param")]
        if len(places) != 1:
            raise PrototxtError(f"{self.source}: it gives {len(places)} train nets; a solver has exactly one")
        return self._at(self._load(places[0]), self.params.train_state, "TRAIN")

    def test_nets(self) -> list[Net]:
        """Return the nets of the TEST phase, one for each test_iter."""
        own = [item for item in self.inline if item.name == "test_net_param"]
        own += [Field("test_net", name, 0) for name in self.params.test_net]
        shared = [*self._named("net"), *(item for item in self.inline if item.name == "net_param")]
        count = len(self.params.test_iter)
        places = own + shared[:1] * max(0, count - len(own))
        states = self.params.test_state or (NetState(),) * len(places)
        if len(places) != count or len(states) != count:
            raise PrototxtError(
                f"{self.source}: {count} test_iter, {len(places)} test nets and {len(states)} test states; "
                "each test net has one of each"
            )
        return [self._at(self._load(place), state, "TEST") for place, state in zip(places, states, strict=True)]

    def _named(self, name: str) -> list[Field]:
        return [Field(name, str(getattr(self.params, name)), 0)] if self.params.has(name) else []

    def _load(self, place: Field) -> Net:
        if isinstance(place.value, tuple):
            return _inline_net(place.value, f"{self.source}, {place.name}")
        return read(self.locate(str(place.value)))

    def locate(self, name: str) -> Path:
        """Return a file that the solver names: from the working folder, as Caffe does, or else beside the solver."""
        beside = Path(self.source).parent / name
        return beside if not Path(name).exists() and beside.exists() else Path(name)

    @staticmethod
    def _at(net: Net, state: NetState, phase: str) -> Net:
        """Merge the states as Caffe does: the phase, overruled by the net's own state, overruled by the solver's."""
        own = net.params.state
        found = state.phase if state.has("phase") else own.phase if own.has("phase") else phase
        level = state.level if state.has("level") else own.level
        return net.at(found, (*own.stage, *state.stage), level)


def _inline_net(tree: Sequence[Field], source: str) -> Net:
    try:
        return net_from_tree(tuple(tree), source)
    except PrototxtError as error:
        raise PrototxtError(f"{source}: {error}", error.line) from None


def read_solver(path: str | PathLike[str]) -> Solver:
    """Read a solver prototxt; PrototxtError, naming file and line, where it is none."""
    source = fspath(path)
    try:
        return solver_from_tree(parse(read_text(path)), source)
    except PrototxtError as error:
        text = str(error)
        raise PrototxtError(text if text.startswith(source) else f"{source}: {text}", error.line) from None


def solver_from_tree(tree: Sequence[Field], source: str = "") -> Solver:
    """Make a Solver of a parsed SolverParameter."""
    inline = tuple(item for item in tree if item.name in _INLINE)
    params = SolverParameter.from_text([item for item in tree if item.name not in _INLINE])
    return replace(Solver(params, inline), source=source)
