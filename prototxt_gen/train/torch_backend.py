"""Training with PyTorch: the same solver, nets and data as Caffe's, without Caffe; Caffe can resume from its files.

What happens at iteration i depends only on the solver, the weights, the solver histories, the seed and i: batches are
computed by index (`input_feed`), and PyTorch's random generator is seeded from (seed, i) before every step.

Source: src/caffe/solver.cpp Solver::Step, Solver::Test; src/caffe/solvers/sgd_solver.cpp SGDSolver::ApplyUpdate.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prototxt_gen import caffemodel, weights
from prototxt_gen.analysis import Analysis
from prototxt_gen.caffemodel.types import NewLayer
from prototxt_gen.common.errors import WeightsError
from prototxt_gen.ir import Layer, Net
from prototxt_gen.layers.normalization._batch_norm_shared import INVERSE_STD
from prototxt_gen.net.lowering_checks import analyse_for_conversion
from prototxt_gen.net.phase_rules import refuse_other_phases
from prototxt_gen.net.solver import Solver
from prototxt_gen.runtime.torch_net import TorchNet
from prototxt_gen.schema.dialect import DIALECTS
from prototxt_gen.train.backend import Settings, Step
from prototxt_gen.train.conv_gradients import sum_filter_gradients_as_caffe
from prototxt_gen.train.device import Hardware, missing_gpu_warnings
from prototxt_gen.train.distributed import Processes, use_global_batch_statistics
from prototxt_gen.train.input_feed import BatchFunction, FeedContext, InputFeed
from prototxt_gen.train.learned_parameters import (
    fill_blobs,
    freeze_others,
    learnable_params,
    learned_tensors,
    load_histories,
    overwritten_parameters,
    refuse_partial_clipping,
    solver_histories,
)
from prototxt_gen.train.lr_policies import LearningRatePolicy
from prototxt_gen.train.optimisers import Optimiser
from prototxt_gen.train.schedule import count_tests_before
from prototxt_gen.train.snapshots import weights_of_state
from prototxt_gen.train.step_errors import check_labels, label_ranges, naming_failed_layer
from prototxt_gen.train.test_phase import TestNet, flat_values, value_names
from prototxt_gen.train.total_loss import TotalLoss, with_loss_tops
from prototxt_gen.train.weight_transfer import match_layers

DIALECT = DIALECTS["prototxt-gen"]


class TorchBackend:
    """A solver and its nets in PyTorch, a `backend.Backend`.

    `batches` and `test_batches` return the input blobs of nets whose data come from the program (Input, MemoryData).
    """

    def __init__(
        self,
        solver: Solver,
        settings: Settings | None = None,
        batches: BatchFunction | None = None,
        test_batches: BatchFunction | None = None,
        channels_last: bool = True,
    ) -> None:
        settings = settings or Settings()
        self.solver, self.params, self.seed = solver, solver.params, settings.run_seed(solver)
        self.policy, self.bn_statistic = LearningRatePolicy(self.params), settings.bn_statistic
        self.hardware = replace(Hardware.of(solver, settings), channels_last=channels_last)
        self.warnings = missing_gpu_warnings(solver, settings, self.hardware.device)
        self.processes = Processes(self.hardware.device)
        self._iteration = 0
        self._feeds: list[InputFeed] = []
        self._prefetched: tuple[int, list[Tensor]] | None = None
        self.output_names: list[str] = []
        try:
            self._set_up(settings, batches, test_batches)
        except BaseException:
            self.close()
            raise

    def _set_up(self, settings: Settings, batches: BatchFunction | None, test_batches: BatchFunction | None) -> None:
        train_net = self.solver.read_train_net()
        self.feed = self._input_feed(train_net, "TRAIN", settings, batches)
        self.net = self._torch_net(self.feed)
        if self.hardware.device.type == "cpu" and not (self.hardware.is_mixed_precision or settings.compile):
            sum_filter_gradients_as_caffe(self.net)
        self.analysis = _with_original_layers(self.net.analysis, train_net)
        self.tests: list[TestNet] = []
        for net, count in zip(self.solver.read_test_nets(), self.params.test_iter, strict=True):
            feed = self._input_feed(net, "TEST", settings, test_batches)
            self.tests.append(TestNet(self._torch_net(feed), feed, count, self.hardware))
        self.learnable_params, self.label_ranges = learnable_params(self.net), label_ranges(self.net)
        refuse_partial_clipping(self.learnable_params, self.params)
        freeze_others(self.net, self.learnable_params)
        self.learned = [tensor.parameter for tensor in learned_tensors(self.learnable_params)]
        self.overwritten = overwritten_parameters(self.net, self.learnable_params)
        self.optimiser = Optimiser(self.params, self.solver.type, learned_tensors(self.learnable_params))
        for test in self.tests:
            test.share_with(self.net)
        self.total_loss: Any = self._total_loss(settings)

    def _input_feed(self, net: Net, phase: str, settings: Settings, batch_function: BatchFunction | None) -> InputFeed:
        refuse_other_phases(net, phase)
        rank, ranks = self.processes.rank, self.processes.ranks
        context = FeedContext(phase, self.seed, self.solver.source, settings.workers, rank, ranks)
        feed = InputFeed(net, context, batch_function)
        self._feeds.append(feed)
        return feed

    def _torch_net(self, feed: InputFeed) -> TorchNet:
        net = TorchNet(analyse_for_conversion(with_loss_tops(feed.net)))
        fill_blobs(net, self.seed)
        self.hardware.move_to_device(net)
        return net

    def _total_loss(self, settings: Settings) -> Any:
        checkpointing = settings.memory_efficient and not settings.compile
        loss_module = TotalLoss(self.net, self.hardware.is_mixed_precision, checkpointing)
        self.norms = [module for module in self.net.modules() if hasattr(module, "average")]
        if settings.sync_bn and self.processes.ranks > 1:
            for norm in self.norms:
                use_global_batch_statistics(norm, self.processes.ranks)
        self.output_blobs = [value.blob for value in loss_module.outputs]
        return _compiled(loss_module, settings.memory_efficient) if settings.compile else loss_module

    @property
    def iteration(self) -> int:
        """The number of updates so far."""
        return self._iteration

    def step(self) -> Step:
        """Run one iteration: forward and backward passes over iter_size batches, then one update."""
        iteration, size = self._iteration, self.params.iter_size
        self.net.train()
        torch.manual_seed(self._derived_seed("step"))
        for parameter in self.learned:
            parameter.grad = None
        losses = []
        for local_batch in range(iteration * size, (iteration + 1) * size):
            for parameter in self.overwritten:
                parameter.grad = None
            inputs = self._inputs(local_batch)
            with naming_failed_layer(self.net):
                with self.hardware.autocast():
                    loss, outputs = self.total_loss(*inputs)
                if loss.requires_grad:  # else no learned blob affects it; Caffe then applies only the weight decay
                    loss.backward()
            losses.append(loss.detach())
        self.processes.average([parameter.grad for parameter in self.learned if parameter.grad is not None])
        rate = self.policy.rate(iteration)
        self.optimiser.update(rate, iteration)
        self._iteration += 1
        self._prefetch_inputs()
        return self._step_result(iteration, torch.stack(losses).mean(), rate, outputs)

    def _inputs(self, local_batch: int) -> list[Tensor]:
        """Return the train net's inputs for a batch of this process."""
        prefetched, self._prefetched = self._prefetched, None
        if prefetched is not None and prefetched[0] == local_batch:
            return prefetched[1]
        return self.hardware.tensors(self.net.inputs, check_labels(self.label_ranges, self.feed.batch_at(local_batch)))

    def _prefetch_inputs(self) -> None:
        """Fetch the next batch while the GPU is busy."""
        if self.hardware.device.type == "cuda" and self._iteration < self.params.max_iter:
            local_batch = self._iteration * self.params.iter_size
            self._prefetched = local_batch, self._inputs(local_batch)

    def _step_result(self, iteration: int, loss: Tensor, rate: float, outputs: list[Tensor]) -> Step:
        tensor = flat_values([loss, *outputs])
        self.processes.average([tensor])
        self.output_names = self.output_names or value_names(self.output_blobs, outputs)
        values = tensor.tolist()
        return Step(iteration, values[0], rate, dict(zip(self.output_names, values[1:], strict=True)))

    def _derived_seed(self, purpose: str) -> int:
        """Return a seed that depends on the run's seed, the process, the iteration and the purpose (step or test)."""
        return zlib.crc32(f"{self.seed} {purpose} {self._iteration} {self.processes.rank}".encode())

    def test(self) -> list[Mapping[str, float]]:
        """Run every test net over test_iter batches, which continue where those of the previous test ended."""
        self.processes.broadcast_from_first(list(self.net.buffers()))
        torch.manual_seed(self._derived_seed("test"))
        before = count_tests_before(self.params, self._iteration)
        return [test.run(before * test.count, self.processes) for test in self.tests]

    def max_over_processes(self, number: int) -> int:
        """Return the largest of the numbers of all processes."""
        return self.processes.max(number)

    def inexact_resume_warnings(self) -> list[str]:
        """Return one line for each layer that keeps a resumed run of this net from being exact."""
        return [
            f"layer {lowered.layer.name!r} ({lowered.layer.type}): its state from batch to batch is in no snapshot; "
            "a resumed run begins with zeros"
            for lowered in self.net.lowered_layers
            if any(hasattr(module, "persistent_state") for module in lowered.module.modules())
        ]

    def snapshot(self, weights_file: Path, state: Path) -> None:
        """Write the blobs of the train net and the solver state. A name that ends in .h5 selects HDF5."""
        weights.write(weights_file, self.analysis, self.net.dump_weights(), DIALECT, force=True)
        caffemodel.write_solverstate(
            state,
            iter=self._iteration,
            learned_net=str(weights_file),
            history=solver_histories(self.learnable_params, self.optimiser),
            current_step=self.policy.current_step,
            force=True,
        )

    def restore(self, state_file: Path) -> None:
        """Load a solver state and its weights, written by this backend or by Caffe, and continue there."""
        state, file = caffemodel.read_solverstate(state_file), weights_of_state(state_file)
        matched, _ = match_layers(file, self._shapes(), self._layers())
        missing = self._shapes().keys() - {layer.name for layer in matched}
        if missing:
            names = ", ".join(map(repr, sorted(missing)))
            raise WeightsError(f"{file}: no weights for {names}: is it a snapshot of this net?")
        load_histories(self.learnable_params, self.optimiser, state)
        self._load_arrays(matched, INVERSE_STD)
        self._iteration, self.policy.current_step, self._prefetched = state.iter, state.current_step, None
        modules: list[Any] = list(self.net.modules())
        for module in modules:
            if isinstance(getattr(module, "steps", None), int):
                module.steps = state.iter * self.params.iter_size
            if hasattr(module, "persistent_state"):
                module.reset()

    def load_weights(self, path: Path) -> list[str]:
        """Load the layers that match by name and shape; return one line per layer that says whether it matched.

        Raises WeightsError if a layer matches by name but not by shape.
        """
        matched, lines = match_layers(path, self._shapes(), self._layers())
        merged = self._has_merged_bn(matched)
        statistic = weights.bn_statistic(caffemodel.read(path), None, self.bn_statistic) if merged else INVERSE_STD
        self._load_arrays(matched, statistic)
        return lines

    def _shapes(self) -> dict[str, list[tuple[int, ...]]]:
        nets = (*(test.net for test in self.tests), self.net)
        layers = [lowered for net in nets for lowered in net.lowered_layers if lowered.roles]
        return {lowered.layer.name: [spec.shape for spec in lowered.specs.values()] for lowered in layers}

    def _has_merged_bn(self, matched: list[NewLayer]) -> bool:
        names = {layer.name for layer in matched}
        return any(INVERSE_STD in lowered.roles for lowered in self.net.lowered_layers if lowered.layer.name in names)

    def _layers(self) -> list[Layer]:
        nets = (self.net, *(test.net for test in self.tests))
        return [lowered.layer for net in nets for lowered in net.lowered_layers]

    def _load_arrays(self, matched: list[NewLayer], statistic: str) -> None:
        """Load blobs into all nets. Merged BN continues with inverse standard deviations, whatever the file holds."""
        arrays: dict[str, Any] = {layer.name: layer.blobs for layer in matched}
        for net in (*(test.net for test in self.tests), self.net):
            blobs = {
                lowered.layer.name: {
                    statistic if role == INVERSE_STD else role: array
                    for role, array in zip(lowered.roles, arrays[lowered.layer.name], strict=True)
                }
                for lowered in net.lowered_layers
                if lowered.layer.name in arrays
            }
            net.load_weights(weights.as_inverse_std(weights.Weights(blobs), net.analysis))

    def close(self) -> None:
        """Stop the worker processes and leave the process group."""
        for feed in self._feeds:
            feed.close()
        self.processes.close()


def _with_original_layers(analysis: Analysis, net: Net) -> Analysis:
    """Return the analysis with the original layers of the prototxt, for writing."""
    layers = {layer.name: layer for layer in net.layers}
    return replace(analysis, net=net, rows=tuple(replace(row, layer=layers[row.layer.name]) for row in analysis.rows))


def _compiled(loss_module: TotalLoss, checkpointing: bool) -> Any:
    """Return the loss module compiled. `checkpointing` halves the memory that the compiler keeps for the gradient."""
    if checkpointing:
        import torch._functorch.config as functorch

        functorch.activation_memory_budget = 0.5
    return torch.compile(loss_module, dynamic=False)


def create(solver: Solver, settings: Settings) -> TorchBackend:
    """Return the backend at iteration 0 with weights from the fillers."""
    return TorchBackend(solver, settings)
