"""Test nets of the PyTorch backend: they share the tensors of the trained net and return means of their outputs.

Source: src/caffe/solver.cpp Solver::Test; src/caffe/net.cpp Net::ShareTrainedLayersWith.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import show
from prototxt_gen.layers.normalization._batch_norm_module import AveragingNorm
from prototxt_gen.layers.normalization._batch_norm_shared import BATCH
from prototxt_gen.runtime.torch_net import LoweredLayer, TorchNet, run_calls
from prototxt_gen.train.device import Hardware
from prototxt_gen.train.distributed import Processes
from prototxt_gen.train.input_feed import InputFeed
from prototxt_gen.train.step_errors import check_labels, label_ranges, naming_failed_layer
from prototxt_gen.train.total_loss import module_in_float32, reported_outputs

_SET_BY_WEIGHTS = ("eps", "statistic", "merged")
"""Attributes of a batch normalisation module that loading weights sets, beside its tensors."""


def share_tensors(trained: TorchNet, test_net: TorchNet) -> list[tuple[nn.Module, nn.Module]]:
    """Make layers of a test net use the tensors of the trained net's layers with the same name.

    Both nets must already be on their device. Returns the pairs of modules (trained, test). Raises NetError if the
    blobs of two such layers differ in shape, UnsupportedError if PyTorch stores them differently.
    """
    trained_layers = {lowered.layer.name: lowered for lowered in trained.lowered_layers if lowered.roles}
    pairs = []
    for lowered in test_net.lowered_layers:
        source = trained_layers.get(lowered.layer.name)
        if source is not None and lowered.roles:
            _check_shareable(source, lowered)
            for role, location in lowered.parameter_locations.items():
                location.use_parameter(source.parameter_locations[role].parameter)
            modules = list(zip(source.module.modules(), lowered.module.modules(), strict=False))
            for trained_module, test_module in modules:
                _share_buffers(trained_module, test_module)
            pairs += modules
    return pairs


def _check_shareable(source: LoweredLayer, lowered: LoweredLayer) -> None:
    train_shapes, test_shapes = ([spec.shape for spec in each.specs.values()] for each in (source, lowered))
    if train_shapes != test_shapes:
        shapes = f"{', '.join(map(show, test_shapes))}, in phase TRAIN {', '.join(map(show, train_shapes))}"
        raise lowered.layer.error(f"its blobs are {shapes}; layers of one name share them")
    has_statistics = any(spec.statistic for spec in lowered.specs.values())
    if source.parameter_locations.keys() != lowered.parameter_locations.keys() or (
        has_statistics and type(source.layer_type) is not type(lowered.layer_type)
    ):
        raise UnsupportedError(
            f"layer {lowered.layer.name!r} ({lowered.layer.type}): it cannot share its blobs with the "
            f"{source.layer.type} of its name in phase TRAIN"
        )


def _share_buffers(trained_module: nn.Module, test_module: nn.Module) -> None:
    for name, buffer in trained_module._buffers.items():
        if name in test_module._buffers:
            test_module._buffers[name] = buffer


def _average_in_test(net: TorchNet) -> None:
    """Make BatchNorm layers with use_global_stats: false add the batches of tests to the moving statistics.

    Source: src/caffe/layers/batch_norm_layer.cpp BatchNormLayer::Forward_cpu, which does so in both phases. The layers
    with scale and bias that only forks have are left out.
    """
    for module in net.modules():
        if isinstance(module, AveragingNorm) and module.statistics == BATCH and not module.merged:
            module.averages_in_test = True


class TestNet:
    """A net of phase TEST with its data. One test runs `count` batches (test_iter)."""

    __test__ = False  # the class name would make pytest collect it

    def __init__(self, net: TorchNet, feed: InputFeed, count: int, hardware: Hardware) -> None:
        self.net, self.feed, self.count, self.hardware = net, feed, count, hardware
        self.outputs, self.label_ranges = reported_outputs(net), label_ranges(net)
        self.calls = net.layer_calls(self.outputs, module_in_float32 if hardware.is_mixed_precision else None)
        self.module_pairs: list[tuple[nn.Module, nn.Module]] = []
        net.requires_grad_(False)
        _average_in_test(net)

    def share_with(self, trained: TorchNet) -> None:
        """Use the tensors of the trained net from now on."""
        self.module_pairs = share_tensors(trained, self.net)

    @torch.no_grad()
    def run(self, first: int, processes: Processes) -> dict[str, float]:
        """Return the mean outputs over `count` batches from batch number `first` on, divided among the processes."""
        for trained_module, test_module in self.module_pairs:
            attributes = trained_module.__dict__
            test_module.__dict__.update({name: attributes[name] for name in _SET_BY_WEIGHTS if name in attributes})
        self.net.eval()
        total: Tensor | None = None
        names: list[str] = []
        for local_batch in self._local_batches(first, processes):
            outputs = self._run_batch(local_batch)
            names = names or value_names([value.blob for value in self.outputs], outputs)
            flat = flat_values(outputs)
            total = flat if total is None else total + flat
        return self._means(total, names, processes)

    def _local_batches(self, first: int, processes: Processes) -> Iterator[int]:
        """Yield the batches of this process: every `ranks`-th batch of the test."""
        for batch in range(first, first + self.count):
            if batch % processes.ranks == processes.rank:
                yield batch // processes.ranks

    def _run_batch(self, local_batch: int) -> list[Tensor]:
        arrays = check_labels(self.label_ranges, self.feed.batch_at(local_batch))
        blobs = self.net.initial_blobs(self.hardware.tensors(self.net.inputs, arrays))
        with naming_failed_layer(self.net), self.hardware.autocast():
            run_calls(self.calls, blobs)
        return self.net.select_blobs(blobs, self.outputs)

    def _means(self, total: Tensor | None, names: Sequence[str], processes: Processes) -> dict[str, float]:
        """Return the means over all processes. A process without a batch contributes zeros of the right shapes."""
        if total is None:
            shapes = self.net.analysis.shapes
            zeros = [torch.zeros(shapes[value], device=self.hardware.device) for value in self.outputs]
            total, names = flat_values(zeros), value_names([value.blob for value in self.outputs], zeros)
        return dict(zip(names, (processes.sum(total) / self.count).tolist(), strict=True))


def flat_values(tensors: Sequence[Tensor]) -> Tensor:
    """Return the elements of all tensors concatenated in one float32 vector."""
    return torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors]) if tensors else torch.zeros(0)


def value_names(blobs: Sequence[str], tensors: Sequence[Tensor]) -> list[str]:
    """Return a name for each element: `accuracy`, or `scores[0]`, `scores[1]` (see `backend.named_outputs`)."""
    return [
        blob if tensor.numel() == 1 else f"{blob}[{index}]"
        for blob, tensor in zip(blobs, tensors, strict=True)
        for index in range(tensor.numel())
    ]
