"""TorchNet: a PyTorch module that runs any Net, blob by blob. It imports torch: import it where it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.errors import NetError, UnsupportedError
from prototxt_gen.ir import Layer, Value, show
from prototxt_gen.layers.base import BlobSpec, LayerType
from prototxt_gen.lowering import lower_all
from prototxt_gen.weights import Array, Weights


@dataclass(frozen=True)
class Step:
    """One layer at work: `path` is where its module hangs in the tree of modules."""

    layer: Layer
    room: LayerType
    module: nn.Module
    path: str
    roles: tuple[str, ...]
    specs: Mapping[str, BlobSpec]


class TorchNet(nn.Module):
    """Runs a net of one phase. Inputs are the net's inputs and the tops of its data layers; shapes are N×C×H×W.

    Its modules hang in a tree that follows the slash-separated layer names. `train()` and `eval()` are the phase.
    """

    def __init__(self, analysis: Analysis, weights: Weights | None = None) -> None:
        super().__init__()
        self.net = analysis.net
        self.analysis = analysis
        runnable = [row for row in analysis.rows if not _makes(row.layer)]
        self.inputs = (*self.net.inputs, *(v for row in analysis.rows if _makes(row.layer) for v in row.layer.tops))
        body = Analysis(self.net, tuple(runnable), analysis.shapes)
        self.steps: list[Step] = lower_all(body, self._step, "PyTorch")
        self._share()
        if weights is not None:
            self.load_weights(weights)
        self.train(False)

    def _step(self, row: Row) -> Step:
        room = layers.room(row.layer)
        shapes = [shape for shape in row.bottoms if shape is not None]
        module = room.torch(row.layer, shapes)
        path = _hang(self, row.layer.name, module)
        return Step(row.layer, room, module, path, tuple(row.blobs), row.blobs)

    def _share(self) -> None:
        """Let blobs of one `param` name be one tensor, owned by the first layer. Source: net.cpp Net::AppendParam."""
        owners: dict[str, tuple[nn.Module, str]] = {}
        for step in self.steps:
            for role, spec in zip(step.roles, step.layer.params.param, strict=False):
                if not spec.name:
                    continue
                module, owned = owners.setdefault(spec.name, (step.module, role))
                if module is not step.module:
                    _share_one(step, role, getattr(module, owned, None))

    def load_weights(self, weights: Weights) -> None:
        """Put the blobs of the weights into the modules."""
        for step in self.steps:
            found = weights.of(step.layer.name)
            if found:
                step.room.load(step.module, found)

    def dump_weights(self) -> Weights:
        """Return the blobs that the modules hold, in Caffe's shapes."""
        made: dict[str, dict[str, Array]] = {}
        for step in self.steps:
            if step.roles:
                found = step.room.dump(step.module, list(step.roles))
                specs = list(step.specs.values())
                made[step.layer.name] = {
                    role: array.reshape(spec.shape) for (role, array), spec in zip(found.items(), specs, strict=True)
                }
        return Weights(made)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[Value, Tensor]:
        """Return every blob the net makes, by value, for inputs given by blob name."""
        return self._run(inputs, keep=None)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the net's output, or the tuple of them, for the inputs in order."""
        named = {value.blob: tensor for value, tensor in zip(self.inputs, inputs, strict=True)}
        outputs = self.net.outputs
        blobs = self._run(named, keep=set(outputs))
        found = tuple(blobs[value] for value in outputs)
        return found[0] if len(found) == 1 else found

    def _run(self, inputs: Mapping[str, Tensor], keep: set[Value] | None) -> dict[Value, Tensor]:
        blobs = {value: self._input(value, inputs) for value in self.inputs}
        last = self._last_uses() if keep is not None else {}
        for index, step in enumerate(self.steps):
            blobs.update(zip(step.layer.tops, self._tops(step, blobs), strict=True))
            for value in step.layer.bottoms:
                if keep is not None and last.get(value) == index and value not in keep:
                    blobs.pop(value, None)
        return blobs

    def _tops(self, step: Step, blobs: Mapping[Value, Tensor]) -> Sequence[Tensor]:
        bottoms = [blobs[value] for value in step.layer.bottoms]
        down = step.layer.params.propagate_down
        if down and len(down) == len(bottoms):
            bottoms = [one if flag else one.detach() for one, flag in zip(bottoms, down, strict=True)]
        made = step.module(*bottoms)
        tops = made if isinstance(made, (tuple, list)) else (made,)
        return list(tops)[: len(step.layer.tops)]

    def _input(self, value: Value, inputs: Mapping[str, Tensor]) -> Tensor:
        if value.blob not in inputs:
            raise NetError(f"{self.net.name}: input {value.blob!r} is not given")
        return inputs[value.blob]

    def _last_uses(self) -> dict[Value, int]:
        return {value: index for index, step in enumerate(self.steps) for value in step.layer.bottoms}


def _makes(layer: Layer) -> bool:
    return layers.room(layer).data


def _share_one(step: Step, role: str, owned: object) -> None:
    mine = getattr(step.module, role, None)
    if not isinstance(owned, nn.Parameter) or not isinstance(mine, nn.Parameter):
        raise UnsupportedError(f"layer {step.layer.name!r} ({step.layer.type}): its {role} cannot be shared in PyTorch")
    if owned.shape != mine.shape:
        shapes = f"{show(tuple(owned.shape))} and {show(tuple(mine.shape))}"
        raise step.layer.error(f"it shares its {role} with a layer of another shape, {shapes}")
    setattr(step.module, role, owned)


def _hang(root: nn.Module, name: str, module: nn.Module) -> str:
    """Hang a module into the tree at its slash-separated name; return the dotted path.

    Where a part of the way is a layer itself (`conv1` and `conv1/bn`), the rest is joined to it: `conv1_bn`.
    """
    parts = [_identifier(part) for part in name.split("/")]
    place, way = root, []
    for index, part in enumerate(parts[:-1]):
        held = place._modules.get(part)
        if held is not None and type(held) is not nn.Module:
            parts[index:] = ["_".join(parts[index:])]
            break
        if held is None:
            place.add_module(part, nn.Module())
        place = place.get_submodule(part)
        way.append(part)
    leaf = _free(place, parts[-1])
    place.add_module(leaf, module)
    return ".".join([*way, leaf])


def _identifier(part: str) -> str:
    """Return a name that Python takes as an attribute."""
    made = "".join(c if c.isalnum() or c == "_" else "_" for c in part) or "_"
    return f"_{made}" if made[0].isdigit() else made


def _free(place: nn.Module, name: str) -> str:
    taken = dir(place)
    return next(n for n in (name, *(f"{name}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def as_tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Return float32 tensors that own their memory."""
    return {name: torch.from_numpy(array.astype("float32", copy=True)) for name, array in arrays.items()}
