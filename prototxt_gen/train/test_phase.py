"""Test nets in PyTorch: they share the trained net's tensors, and give the means of their outputs.

Source: src/caffe/solver.cpp Solver::Test; src/caffe/net.cpp Net::ShareTrainedLayersWith.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import show
from prototxt_gen.runtime.torch_net import Step, TorchNet, work
from prototxt_gen.train.device import Hardware
from prototxt_gen.train.distributed import Processes
from prototxt_gen.train.input_feed import Feed
from prototxt_gen.train.step_errors import checked, labels_of, told
from prototxt_gen.train.total_loss import in_float32, scores

_TOLD_BY_WEIGHTS = ("eps", "statistic", "merged")
"""What a batch normalisation learns about itself when weights are loaded, beside its tensors."""


def share(trained: TorchNet, other: TorchNet) -> list[tuple[nn.Module, nn.Module]]:
    """Let layers of one name hold the same tensors; return the pairs of modules. Both nets must be in their place.

    NetError where the blobs of such layers differ in shape, UnsupportedError where PyTorch keeps them differently.
    """
    own = {step.layer.name: step for step in trained.steps if step.roles}
    pairs = []
    for step in other.steps:
        source = own.get(step.layer.name)
        if source is not None and step.roles:
            _check(source, step)
            for role, mine in step.learned.items():
                mine.share(source.learned[role].parameter)
            modules = list(zip(source.module.modules(), step.module.modules(), strict=False))
            for theirs, ours in modules:
                _share_buffers(theirs, ours)
            pairs += modules
    return pairs


def _check(source: Step, step: Step) -> None:
    theirs, ours = ([spec.shape for spec in each.specs.values()] for each in (source, step))
    if theirs != ours:
        shapes = f"{', '.join(map(show, ours))}, in phase TRAIN {', '.join(map(show, theirs))}"
        raise step.layer.error(f"its blobs are {shapes}; layers of one name share them")
    statistics = any(spec.statistic for spec in step.specs.values())
    if source.learned.keys() != step.learned.keys() or (
        statistics and type(source.layer_type) is not type(step.layer_type)
    ):
        raise UnsupportedError(
            f"layer {step.layer.name!r} ({step.layer.type}): it cannot share its blobs with the {source.layer.type} "
            "of its name in phase TRAIN"
        )


def _share_buffers(theirs: nn.Module, ours: nn.Module) -> None:
    for name, buffer in theirs._buffers.items():
        if name in ours._buffers:
            ours._buffers[name] = buffer


class TestNet:
    """A net of phase TEST and its data. `count` batches make one test."""

    __test__ = False  # whatever its name makes pytest think

    def __init__(self, net: TorchNet, feed: Feed, count: int, hardware: Hardware) -> None:
        self.net, self.feed, self.count, self.hardware = net, feed, count, hardware
        self.scores, self.labels = scores(net), labels_of(net)
        self.tasks = net.tasks(self.scores, in_float32 if hardware.mixed else None)
        self.pairs: list[tuple[nn.Module, nn.Module]] = []
        net.requires_grad_(False)

    def share(self, trained: TorchNet) -> None:
        """Hold the trained net's tensors from now on."""
        self.pairs = share(trained, self.net)

    @torch.no_grad()
    def run(self, first: int, processes: Processes) -> dict[str, float]:
        """Return the means of the scores over `count` batches from number `first` on, divided among the processes."""
        for theirs, ours in self.pairs:
            ours.__dict__.update({name: theirs.__dict__[name] for name in _TOLD_BY_WEIGHTS if name in theirs.__dict__})
        self.net.eval()
        total: Tensor | None = None
        names: list[str] = []
        for turn in self._turns(first, processes):
            found = self._batch(turn)
            names = names or names_of([value.blob for value in self.scores], found)
            flat = flattened(found)
            total = flat if total is None else total + flat
        return self._means(total, names, processes)

    def _turns(self, first: int, processes: Processes) -> Iterator[int]:
        """Yield this process's turns: its batches are every `ranks`-th."""
        for batch in range(first, first + self.count):
            if batch % processes.ranks == processes.rank:
                yield batch // processes.ranks

    def _batch(self, turn: int) -> list[Tensor]:
        blobs = self.net.begin(self.hardware.tensors(self.net.inputs, checked(self.labels, self.feed.take(turn))))
        with told(self.net), self.hardware.autocast():
            work(self.tasks, blobs)
        return self.net.found(blobs, self.scores)

    def _means(self, total: Tensor | None, names: Sequence[str], processes: Processes) -> dict[str, float]:
        """Average over the processes too; one that had no batch learns from the shapes what there is to add to."""
        if total is None:
            shapes = [
                torch.zeros(self.net.analysis.shapes[value], device=self.hardware.device) for value in self.scores
            ]
            total, names = flattened(shapes), names_of([value.blob for value in self.scores], shapes)
        return dict(zip(names, (processes.total(total) / self.count).tolist(), strict=True))


def flattened(tensors: Sequence[Tensor]) -> Tensor:
    """Return all numbers in a row, float32."""
    return torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors]) if tensors else torch.zeros(0)


def names_of(blobs: Sequence[str], tensors: Sequence[Tensor]) -> list[str]:
    """Return the names of all their numbers: `accuracy`, or `scores[0]`, `scores[1]` (`backend.named_outputs`)."""
    return [
        blob if tensor.numel() == 1 else f"{blob}[{index}]"
        for blob, tensor in zip(blobs, tensors, strict=True)
        for index in range(tensor.numel())
    ]
