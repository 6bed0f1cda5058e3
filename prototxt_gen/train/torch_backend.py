"""Training with PyTorch: the very same solver, nets and data as Caffe's, no Caffe, and files that Caffe goes on from.

What a run does at iteration i is a function of the solver, the weights, the histories, the seed and i alone: batches
are made by their index (`feed`), and PyTorch's random numbers are seeded anew from (seed, i) before every step.

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
from prototxt_gen.net.lowering_checks import ready
from prototxt_gen.net.phase_rules import refuse_other_phases
from prototxt_gen.net.solver import Solver
from prototxt_gen.runtime.torch_net import TorchNet
from prototxt_gen.schema.dialect import DIALECTS
from prototxt_gen.train.backend import Settings, Step
from prototxt_gen.train.conv_gradients import sum_as_caffe
from prototxt_gen.train.device import Hardware
from prototxt_gen.train.distributed import Processes, synchronise
from prototxt_gen.train.input_feed import Feed, Given, Place
from prototxt_gen.train.learned_parameters import (
    fill_all,
    freeze_others,
    histories,
    learnables,
    overwritten,
    put_histories,
    refuse_clipping,
    slots_of,
)
from prototxt_gen.train.lr_policies import Policy
from prototxt_gen.train.optimisers import Optimiser
from prototxt_gen.train.schedule import tests_before
from prototxt_gen.train.snapshots import weights_of
from prototxt_gen.train.step_errors import checked, labels_of, told
from prototxt_gen.train.test_phase import TestNet, flattened, names_of
from prototxt_gen.train.total_loss import Objective, with_loss_tops
from prototxt_gen.train.weight_transfer import matched

DIALECT = DIALECTS["prototxt-gen"]


class TorchBackend:
    """A solver and its nets in PyTorch (see `backend.Backend`).

    `batches` and `test_batches` feed nets whose data come from the program: Input and MemoryData layers.
    """

    def __init__(
        self,
        solver: Solver,
        settings: Settings | None = None,
        batches: Given | None = None,
        test_batches: Given | None = None,
        channels_last: bool = True,
    ) -> None:
        settings = settings or Settings()
        self.solver, self.params, self.seed = solver, solver.params, settings.seed_for(solver)
        self.policy, self.statistic = Policy(self.params), settings.bn_statistic
        self.hardware = replace(Hardware.of(solver, settings), channels_last=channels_last)
        self.processes = Processes(self.hardware.device)
        self._iteration = 0
        self._feeds: list[Feed] = []
        self._ahead: tuple[int, list[Tensor]] | None = None
        self.names: list[str] = []
        try:
            self._begin(settings, batches, test_batches)
        except BaseException:
            self.close()
            raise

    def _begin(self, settings: Settings, batches: Given | None, test_batches: Given | None) -> None:
        written = self.solver.train_net()
        self.feed = self._feed(written, "TRAIN", settings, batches)
        self.net = self._net(self.feed)
        if self.hardware.device.type == "cpu" and not (self.hardware.mixed or settings.compile):
            sum_as_caffe(self.net)
        self.analysis = _as_written(self.net.analysis, written)
        self.tests = [
            self._test_net(self._feed(net, "TEST", settings, test_batches), count)
            for net, count in zip(self.solver.test_nets(), self.params.test_iter, strict=True)
        ]
        self.slots, self.labels = slots_of(self.net), labels_of(self.net)
        refuse_clipping(self.slots, self.params)
        freeze_others(self.net, self.slots)
        self.learned = [one.parameter for one in learnables(self.slots)]
        self.overwritten = overwritten(self.net, self.slots)
        self.optimiser = Optimiser(self.params, self.solver.type, learnables(self.slots))
        self._share()
        self.objective: Any = self._objective(settings)

    def _feed(self, net: Net, phase: str, settings: Settings, given: Given | None) -> Feed:
        refuse_other_phases(net, phase)
        rank, ranks = self.processes.rank, self.processes.ranks
        made = Feed(net, Place(phase, self.seed, self.solver.source, settings.workers, rank, ranks), given)
        self._feeds.append(made)
        return made

    def _net(self, feed: Feed) -> TorchNet:
        net = TorchNet(ready(with_loss_tops(feed.net)))
        fill_all(net, self.seed)
        self.hardware.place(net)
        return net

    def _test_net(self, feed: Feed, count: int) -> TestNet:
        return TestNet(self._net(feed), feed, count, self.hardware)

    def _share(self) -> None:
        for test in self.tests:
            test.share(self.net)

    def _objective(self, settings: Settings) -> Any:
        sparing = settings.memory_efficient and not settings.compile
        made = Objective(self.net, self.hardware.mixed, sparing)
        self.norms = [module for module in self.net.modules() if hasattr(module, "average")]
        if settings.sync_bn and self.processes.ranks > 1:
            for norm in self.norms:
                synchronise(norm, self.processes.ranks)
        self.scores = [value.blob for value in made.scores]
        return _compiled(made, settings.memory_efficient) if settings.compile else made

    @property
    def iteration(self) -> int:
        """The number of updates made."""
        return self._iteration

    def step(self) -> Step:
        """Run one iteration: forward and backward over iter_size batches, then one update."""
        iteration, size = self._iteration, self.params.iter_size
        self.net.train()
        torch.manual_seed(self._draw("step"))
        for parameter in self.learned:
            parameter.grad = None
        losses = []
        for turn in range(iteration * size, (iteration + 1) * size):
            for parameter in self.overwritten:
                parameter.grad = None
            inputs = self._inputs(turn)
            with told(self.net):
                with self.hardware.autocast():
                    loss, found = self.objective(*inputs)
                if loss.requires_grad:  # else it hangs on nothing that is learned: Caffe goes on with the decay alone
                    loss.backward()
            losses.append(loss.detach())
        self.processes.average([parameter.grad for parameter in self.learned if parameter.grad is not None])
        rate = self.policy.rate(iteration)
        self.optimiser.update(rate, iteration)
        self._iteration += 1
        self._look_ahead()
        return self._told(iteration, torch.stack(losses).mean(), rate, found)

    def _inputs(self, turn: int) -> list[Tensor]:
        """Return the train net's inputs at a turn."""
        held, self._ahead = self._ahead, None
        if held is not None and held[0] == turn:
            return held[1]
        return self.hardware.tensors(self.net.inputs, checked(self.labels, self.feed.take(turn)))

    def _look_ahead(self) -> None:
        """Fetch the next batch while the card is at work."""
        if self.hardware.device.type == "cuda" and self._iteration < self.params.max_iter:
            turn = self._iteration * self.params.iter_size
            self._ahead = turn, self._inputs(turn)

    def _told(self, iteration: int, loss: Tensor, rate: float, found: list[Tensor]) -> Step:
        numbers = flattened([loss, *found])
        self.processes.average([numbers])
        self.names = self.names or names_of(self.scores, found)
        values = numbers.tolist()
        return Step(iteration, values[0], rate, dict(zip(self.names, values[1:], strict=True)))

    def _draw(self, what: str) -> int:
        """Return a seed that depends on the run's seed, the process, the iteration and what it is for."""
        return zlib.crc32(f"{self.seed} {what} {self._iteration} {self.processes.rank}".encode())

    def test(self) -> list[Mapping[str, float]]:
        """Run every test net over its test_iter batches, which go on where those of the last test ended."""
        self.processes.follow_first(list(self.net.buffers()))
        torch.manual_seed(self._draw("test"))
        before = tests_before(self.params, self._iteration)
        return [test.run(before * test.count, self.processes) for test in self.tests]

    def agree(self, stop: int) -> int:
        """Return the largest of all processes' numbers."""
        return self.processes.largest(stop)

    def remarks(self) -> list[str]:
        """Return what keeps a resumed run of this net from being exact."""
        return [
            f"layer {step.layer.name!r} ({step.layer.type}): what it carries from batch to batch is in no snapshot; "
            "a resumed run begins with zeros"
            for step in self.net.steps
            if any(hasattr(module, "carried") for module in step.module.modules())
        ]

    def snapshot(self, weights_file: Path, state: Path) -> None:
        """Write the blobs of all layers of phase TRAIN, and the state; .h5 in a name asks for HDF5."""
        weights.write(weights_file, self.analysis, self.net.dump_weights(), DIALECT, force=True)
        caffemodel.write_solverstate(
            state,
            iter=self._iteration,
            learned_net=str(weights_file),
            history=histories(self.slots, self.optimiser),
            current_step=self.policy.step,
            force=True,
        )

    def restore(self, state: Path) -> None:
        """Go on from a state and its weights, whether ours or Caffe's."""
        found, file = caffemodel.read_solverstate(state), weights_of(state)
        taken, _ = matched(file, self._shapes(), self._layers())
        missing = self._shapes().keys() - {layer.name for layer in taken}
        if missing:
            names = ", ".join(map(repr, sorted(missing)))
            raise WeightsError(f"{file}: no weights for {names}: is it a snapshot of this net?")
        put_histories(self.slots, self.optimiser, found)
        self._take_over(taken, INVERSE_STD)
        self._iteration, self.policy.step, self._ahead = found.iter, found.current_step, None
        modules: list[Any] = list(self.net.modules())
        for module in modules:
            if isinstance(getattr(module, "steps", None), int):
                module.steps = found.iter * self.params.iter_size
            if hasattr(module, "carried"):
                module.reset()

    def load_weights(self, path: Path) -> list[str]:
        """Take over what fits by layer name and shape; WeightsError where a name fits and the shapes do not."""
        taken, lines = matched(path, self._shapes(), self._layers())
        merged = self._has_merged_bn(taken)
        told = weights.statistic_of(caffemodel.read(path), None, self.statistic) if merged else INVERSE_STD
        self._take_over(taken, told)
        return lines

    def _shapes(self) -> dict[str, list[tuple[int, ...]]]:
        steps = [step for net in (*(test.net for test in self.tests), self.net) for step in net.steps if step.roles]
        return {step.layer.name: [spec.shape for spec in step.specs.values()] for step in steps}

    def _has_merged_bn(self, taken: list[NewLayer]) -> bool:
        names = {layer.name for layer in taken}
        return any(INVERSE_STD in step.roles for step in self.net.steps if step.layer.name in names)

    def _layers(self) -> list[Layer]:
        return [step.layer for net in (self.net, *(test.net for test in self.tests)) for step in net.steps]

    def _take_over(self, taken: list[NewLayer], statistic: str) -> None:
        """Put blobs into the nets. BN goes on with inverse standard deviations, whatever the file has."""
        arrays: dict[str, Any] = {layer.name: layer.blobs for layer in taken}
        for net in (*(test.net for test in self.tests), self.net):
            blobs = {
                step.layer.name: {
                    statistic if role == INVERSE_STD else role: array
                    for role, array in zip(step.roles, arrays[step.layer.name], strict=True)
                }
                for step in net.steps
                if step.layer.name in arrays
            }
            net.load_weights(weights.as_inverse_std(weights.Weights(blobs), net.analysis))

    def close(self) -> None:
        """End worker processes, and leave the other processes of the run."""
        for feed in self._feeds:
            feed.close()
        self.processes.leave()


def _as_written(analysis: Analysis, net: Net) -> Analysis:
    """Return the rows with the layers as the prototxt has them, for writing."""
    own = {layer.name: layer for layer in net.layers}
    return replace(analysis, net=net, rows=tuple(replace(row, layer=own[row.layer.name]) for row in analysis.rows))


def _compiled(objective: Objective, sparing: bool) -> Any:
    """Return the objective compiled; `sparing` lets the compiler keep half of what it would for the gradient."""
    if sparing:
        import torch._functorch.config as functorch

        functorch.activation_memory_budget = 0.5
    return torch.compile(objective, dynamic=False)


def create(solver: Solver, settings: Settings) -> TorchBackend:
    """Return the backend, at iteration 0 with filled weights."""
    return TorchBackend(solver, settings)
