"""The interface of a training backend, which PyTorch (`torch_backend`) and pycaffe (`pycaffe_backend`) implement.

The module of a backend has a function `create(solver, settings) -> Backend`. Where several processes train together
(torchrun), each one runs the training loop and only rank 0 writes files. The backend then also has a method
`max_over_processes(number: int) -> int`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prototxt_gen.common.errors import PrototxtGenError, nearest
from prototxt_gen.common.optional_packages import EXTRAS, missing
from prototxt_gen.net.fork_rules import NOTHING_SAID

if TYPE_CHECKING:
    import numpy as np

    from prototxt_gen.net.solver import Solver

BACKENDS = {"torch": "torch_backend", "pycaffe": "pycaffe_backend"}
MAX_REPORTED_VALUES = 32
"""Output blobs with more elements than this (labels, feature maps) are not reported as scores."""


@dataclass(frozen=True)
class Settings:
    """Settings of a backend that the solver prototxt does not contain.

    seed              seed of data order, augmentation, fillers and Dropout; None: the solver's random_seed, else 1
    gpu               index of the GPU; None: pycaffe trains on the CPU, torch on a GPU if there is one
    workers           number of processes that prepare data; 0 prepares it in the training process
    precision         "fp32", "tf32" or "bf16" (torch)
    compile           use torch.compile (torch)
    memory_efficient  use gradient checkpointing (torch)
    sync_bn           compute the batch statistics of batch normalisation over all processes (torch)
    bn_statistic      what the fourth blob of merged BN holds in initial weights that do not say it themselves
    """

    seed: int | None = None
    gpu: int | None = None
    workers: int = 2
    precision: str = "fp32"
    compile: bool = False
    memory_efficient: bool = False
    sync_bn: bool = False
    bn_statistic: str | None = None

    def run_seed(self, solver: Solver) -> int:
        """Return the seed of this run, never negative: a resumed run needs the same seed."""
        seed = solver.params.random_seed if self.seed is None else self.seed
        return seed if seed >= 0 else 1


@dataclass(frozen=True)
class Step:
    """The result of one training iteration.

    `iteration` counts from 0, as in Caffe's log. `loss` is the loss of this iteration only, the mean over iter_size
    batches. `rate` is the learning rate that was used. `outputs` are the net's outputs by name (see `named_outputs`)
    for the last of the iter_size batches.
    """

    iteration: int
    loss: float
    rate: float
    outputs: Mapping[str, float]


class Backend(Protocol):
    """A solver and its nets, ready to train. All methods raise PrototxtGenError for every kind of failure.

    A backend may have an attribute `warnings`, sentences for the user about what it does otherwise than requested.
    """

    @property
    def iteration(self) -> int:
        """The number of updates so far, including those before a resume (Caffe's `iter_`)."""
        ...

    def step(self) -> Step:
        """Run one solver iteration: iter_size batches and one update."""
        ...

    def test(self) -> list[Mapping[str, float]]:
        """Return the outputs of each test net, averaged over its test_iter batches."""
        ...

    def snapshot(self, weights: Path, state: Path) -> None:
        """Write weights and solver state to temporary names; the caller renames both and sets learned_net."""
        ...

    def restore(self, state: Path) -> None:
        """Load a solver state and its weights, and continue exactly there, including data position and random state."""
        ...

    def load_weights(self, path: Path) -> list[str]:
        """Load the layers that match by name and shape; return one line per layer that says whether it matched."""
        ...

    def close(self) -> None:
        """Stop the worker processes. The backend cannot be used afterwards."""
        ...


def create(name: str, solver: Solver, settings: Settings) -> Backend:
    """Return the backend with this name ("torch" or "pycaffe"), at iteration 0, with weights from the fillers.

    Raises PrototxtGenError for an unknown name, a missing package, or a net that cannot be trained.
    """
    if name not in BACKENDS:
        raise PrototxtGenError(f"there is no backend {name!r}{nearest(name, BACKENDS)}")
    try:
        module: Any = importlib.import_module(f"prototxt_gen.train.{BACKENDS[name]}")
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise missing(error.name) from None
    backend: Backend = module.create(solver if solver.rules else replace(solver, rules=NOTHING_SAID), settings)
    return backend


def named_outputs(blobs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    """Return the elements of output blobs by name: `accuracy`, or `scores[0]`, `scores[1]` for several elements.

    Blobs with more than MAX_REPORTED_VALUES elements are left out.
    """
    named: dict[str, float] = {}
    for name, blob in blobs.items():
        values = blob.reshape(-1).tolist()
        if len(values) == 1:
            named[name] = values[0]
        elif len(values) <= MAX_REPORTED_VALUES:
            named |= {f"{name}[{index}]": value for index, value in enumerate(values)}
    return named
