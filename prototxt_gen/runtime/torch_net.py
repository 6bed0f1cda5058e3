"""TorchNet: a PyTorch module that runs any Net, blob by blob. It imports torch: import it where it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.ir import Layer, Value
from prototxt_gen.layers.base import BlobSpec, LayerType
from prototxt_gen.net.lowering_checks import is_fed, lower_all, results, sources
from prototxt_gen.runtime.module_tree import hang
from prototxt_gen.weights import Array, Weights

Call = Callable[..., Any]
Blobs = list["Tensor | None"]
"""The blobs of a run, by the numbers that tasks know them by; None before one is made and after its last use."""


@dataclass(frozen=True)
class Learned:
    """Where a learned blob lives in a module: a parameter, and how the blob's elements lie in its memory."""

    owner: nn.Module
    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter; of layers that share it, one and the same."""
        found = self.owner._parameters[self.name]
        assert found is not None
        return found

    def share(self, parameter: nn.Parameter) -> None:
        """Let the module use this parameter instead of its own."""
        self.owner._parameters[self.name] = parameter

    def borrow(self, other: Learned) -> None:
        """Let the module compute its parameter anew, each time it is asked for, from another that lies otherwise."""
        stock, lying = type(self.owner), tuple(self.parameter.shape)
        order = sorted(range(len(self.shape)), key=lambda axis: -self.strides[axis])

        def borrowed(_: nn.Module) -> Tensor:
            return other._view(other.parameter).reshape(self.shape).permute(order).reshape(lying)

        del self.owner._parameters[self.name]
        self.owner.__class__ = type(stock.__name__, (stock,), {self.name: property(borrowed)})

    def blob(self, tensor: Tensor) -> Array:
        """Return a tensor that is laid out like the parameter as float32 in the blob's layout."""
        return self._view(tensor.detach().cpu().float().contiguous()).numpy()

    def put(self, tensor: Tensor, blob: Array) -> None:
        """Copy a blob of as many elements into a tensor that is laid out like the parameter."""
        plain = torch.empty(tensor.shape)
        self._view(plain).copy_(torch.from_numpy(blob.reshape(self.shape).astype("float32", copy=True)))
        with torch.no_grad():
            tensor.copy_(plain)

    def _view(self, plain: Tensor) -> Tensor:
        return torch.as_strided(plain, self.shape, self.strides)


@dataclass(frozen=True)
class Step:
    """One layer at work: `path` is where its module hangs in the tree of modules.

    `learned` tells, by role, where the solver finds what it may learn; BN's moving statistics are not there.
    """

    layer: Layer
    layer_type: LayerType
    module: nn.Module
    path: str
    roles: tuple[str, ...]
    specs: Mapping[str, BlobSpec]
    learned: dict[str, Learned]


class Task(NamedTuple):
    """A step as it is run: what to call, the numbers of the blobs it takes, makes and is the last to take.

    `detached` are the places of the bottoms that take no gradient back.
    """

    call: Call
    bottoms: tuple[int, ...]
    tops: tuple[int, ...]
    detached: tuple[int, ...]
    done: tuple[int, ...]


def work(tasks: Iterable[Task], blobs: Blobs) -> None:
    """Run the tasks in order. Blobs are dropped at once when no later task takes them."""
    for call, bottoms, tops, detached, done in tasks:
        taken: list[Any] = [blobs[number] for number in bottoms]
        for place in detached:
            taken[place] = taken[place].detach()
        made = call(*taken)
        for number, top in zip(tops, made if isinstance(made, (tuple, list)) else (made,), strict=False):
            blobs[number] = top
        for number in done:
            blobs[number] = None


class TorchNet(nn.Module):
    """Runs a net of one phase. Its inputs are the net's, and the tops of data layers that some layer takes.

    Its modules hang in a tree that follows the slash-separated layer names. `train()` and `eval()` are the phase.
    Layers that share blobs share tensors, unless not `shared`.
    """

    def __init__(self, analysis: Analysis, weights: Weights | None = None, shared: bool = True) -> None:
        super().__init__()
        self.net = analysis.net
        self.analysis = analysis
        runnable = [row for row in analysis.rows if not is_fed(row.layer)]
        self.inputs = sources(self.net)
        body = Analysis(self.net, tuple(runnable), analysis.shapes)
        self.steps: list[Step] = []  # attributes first, so that no layer takes the name of one
        self.numbers: dict[Value, int] = {}
        self._tasks: dict[tuple[Value, ...], list[Task]] = {}
        self.steps = lower_all(body, self._step, "PyTorch")
        made = (*self.inputs, *(top for step in self.steps for top in step.layer.tops))
        self.numbers = {value: number for number, value in enumerate(made)}
        if shared:
            self._share()
        if weights is not None:
            self.load_weights(weights)
        self.train(False)

    def _step(self, row: Row) -> Step:
        layer_type = layers.layer_type_of(row.layer)
        shapes = [shape for shape in row.bottoms if shape is not None]
        module = layer_type.torch(row.layer, shapes)
        path = hang(self, row.layer.name, module)
        return Step(
            row.layer, layer_type, module, path, tuple(row.blobs), row.blobs, _learned(layer_type, module, row.blobs)
        )

    def _share(self) -> None:
        """Let blobs of one `param` name be one tensor, owned by the first layer. Source: net.cpp Net::AppendParam."""
        owners: dict[str, tuple[Step, str]] = {}
        for step in self.steps:
            for role, spec in zip(step.roles, step.layer.params.param, strict=False):
                owner, owned = owners.setdefault(spec.name, (step, role)) if spec.name else (step, role)
                if (owner, owned) != (step, role):
                    _share_one(owner, owned, step, role)

    def load_weights(self, weights: Weights) -> None:
        """Put the blobs of the weights into the modules."""
        for step in self.steps:
            found = weights.of(step.layer.name)
            if found:
                step.layer_type.load(step.module, found)

    def dump_weights(self) -> Weights:
        """Return the blobs that the modules hold, in Caffe's shapes; they may share the modules' memory."""
        made: dict[str, dict[str, Array]] = {}
        for step in self.steps:
            if step.roles:
                found = step.layer_type.dump(step.module, list(step.roles))
                specs = list(step.specs.values())
                made[step.layer.name] = {
                    role: array.reshape(spec.shape) for (role, array), spec in zip(found.items(), specs, strict=True)
                }
        return Weights(made)

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The net's outputs, but for what comes from outside and no layer takes."""
        return results(self.net)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """Return every blob the net makes, by value, for inputs given by blob name."""
        for value in self.inputs:
            if value.blob not in inputs:
                raise NetError(f"{self.net.name}: input {value.blob!r} is not given")
        values = tuple(self.numbers)
        return dict(zip(values, self.compute([inputs[value.blob] for value in self.inputs], values), strict=True))

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the net's output, or the tuple of them, for the inputs in order."""
        found = self.compute(inputs, self.outputs)
        return found[0] if len(found) == 1 else tuple(found)

    def compute(self, inputs: Sequence[Tensor], wanted: tuple[Value, ...]) -> list[Tensor]:
        """Return the wanted blobs for the inputs in order."""
        if wanted not in self._tasks:
            self._tasks[wanted] = self.tasks(wanted)
        blobs = self.begin(inputs)
        work(self._tasks[wanted], blobs)
        return self.found(blobs, wanted)

    def begin(self, inputs: Sequence[Tensor]) -> Blobs:
        """Return the blobs of a run at its start: the inputs alone."""
        return [*inputs, *[None] * (len(self.numbers) - len(inputs))]

    def found(self, blobs: Blobs, wanted: Iterable[Value]) -> list[Tensor]:
        """Return the wanted blobs at the end of a run."""
        found = [blobs[self.numbers[value]] for value in wanted]
        return [blob for blob in found if blob is not None]

    def tasks(self, wanted: Iterable[Value], call: Callable[[Step], Call] | None = None) -> list[Task]:
        """Return the steps as tasks that keep the wanted blobs. `call` tells what to call for a step."""
        later = {self.numbers[value] for value in wanted}
        made = []
        for step in reversed(self.steps):
            bottoms, tops = (tuple(self.numbers[v] for v in values) for values in (step.layer.bottoms, step.layer.tops))
            done = tuple({*bottoms, *tops} - later)
            later.update(bottoms)
            detached = () if self.net.params.force_backward else _detached(step.layer)
            made.append(Task(call(step) if call else step.module, bottoms, tops, detached, done))
        return made[::-1]


def _detached(layer: Layer) -> tuple[int, ...]:
    """Return the places of the bottoms that take no gradient back, unless the net has force_backward.

    Source: src/caffe/net.cpp Net::AppendBottom, Net::Init.
    """
    return tuple(place for place, down in enumerate(layer.params.propagate_down) if not down)


def _learned(layer_type: LayerType, module: nn.Module, specs: Mapping[str, BlobSpec]) -> dict[str, Learned]:
    """Find the parameter of every learned role: the one whose memory the layer type's dump of that role shows."""
    if not specs:
        return {}
    places = {p.data_ptr(): (m, name) for m in module.modules() for name, p in m._parameters.items() if p is not None}
    found = {}
    for role, array in layer_type.dump(module, list(specs)).items():
        place = places.get(array.ctypes.data)
        if place is not None and not specs[role].statistic:
            found[role] = Learned(*place, array.shape, tuple(stride // array.itemsize for stride in array.strides))
    return found


def _share_one(owner: Step, owned: str, step: Step, role: str) -> None:
    """Let a blob be the one of another layer, however the two modules keep it."""
    if role in step.learned and owned in owner.learned:
        mine, theirs = step.learned[role], owner.learned[owned]
        if mine.parameter.numel() != theirs.parameter.numel():
            raise step.layer.error(f"it shares its {role} with layer {owner.layer.name!r}, whose is of another size")
        if (mine.shape, mine.strides) == (theirs.shape, theirs.strides):
            mine.share(theirs.parameter)
        else:
            mine.borrow(theirs)
            del step.learned[role]
    elif _statistics(owner) == _statistics(step) and all(_statistics(step)) and owner.layer_type is step.layer_type:
        for theirs_, mine_ in zip(owner.module.modules(), step.module.modules(), strict=True):
            mine_._buffers.update(theirs_._buffers)
    else:
        raise UnsupportedError(f"layer {step.layer.name!r} ({step.layer.type}): its {role} cannot be shared in PyTorch")


def _statistics(step: Step) -> list[str]:
    """Return the names that a layer's moving statistics are shared by, empty for those that are not; [""] for none."""
    names = [spec.name for spec in step.layer.params.param] + [""] * len(step.roles)
    return [name for role, name in zip(step.roles, names, strict=False) if step.specs[role].statistic] or [""]


def as_tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Return float32 tensors that own their memory."""
    return {name: torch.from_numpy(array.astype("float32", copy=True)) for name, array in arrays.items()}
