"""What a trainer is to the shell around it: PyTorch and pycaffe are used alike.

A backend's module has `create(solver, settings) -> Backend`. Several processes (torchrun): every one runs the shell,
and the shell of rank 0 alone writes files; such a backend also has `agree(stop: int) -> int`, the largest of all.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prototxt_gen.common.errors import PrototxtGenError, nearest
from prototxt_gen.common.optional_packages import EXTRAS, missing

if TYPE_CHECKING:
    import numpy as np

    from prototxt_gen.net.solver import Solver

BACKENDS = {"torch": "torch_backend", "pycaffe": "pycaffe_backend"}
MOST_NUMBERS = 32
"""An output blob with more numbers than this (labels, maps) is no score, and is not reported."""


@dataclass(frozen=True)
class Settings:
    """What the command line may ask of a backend beside what the solver says; None and False are the defaults.

    seed              of data order, augmentation, fillers and Dropout; None takes the solver's random_seed, else 1
    gpu               index of the card; None trains on the CPU with pycaffe, and on a card if there is one with torch
    workers           processes that prepare data; 0 prepares it in the training process
    precision         "fp32" or "bf16" (torch)
    compile           torch.compile (torch)
    memory_efficient  gradient checkpointing (torch)
    sync_bn           statistics over all processes (torch)
    bn_statistic      what the fourth blob of merged BN holds in weights to begin with, where they do not tell
    """

    seed: int | None = None
    gpu: int | None = None
    workers: int = 2
    precision: str = "fp32"
    compile: bool = False
    memory_efficient: bool = False
    sync_bn: bool = False
    bn_statistic: str | None = None

    def seed_for(self, solver: Solver) -> int:
        """Return the seed of this run: a number in every case, so that a resumed run is the same run."""
        given = solver.params.random_seed if self.seed is None else self.seed
        return given if given >= 0 else 1


@dataclass(frozen=True)
class Step:
    """One iteration done. `iteration` counts from 0, as Caffe's log does: the first step of a run is iteration 0.

    `loss` is that of this iteration alone, the mean over iter_size; `rate` the learning rate it used; `outputs` the
    net's outputs by name (see `named_outputs`), those of the last of iter_size batches.
    """

    iteration: int
    loss: float
    rate: float
    outputs: Mapping[str, float]


class Backend(Protocol):
    """A solver and its nets, ready to train. Faults of any kind are raised as PrototxtGenError."""

    @property
    def iteration(self) -> int:
        """The number of updates made so far, over all resumed runs; Caffe's iter_."""
        ...

    def step(self) -> Step:
        """Run one solver iteration, iter_size included."""
        ...

    def test(self) -> list[Mapping[str, float]]:
        """Return the outputs of each test net, averaged over its test_iter; "loss" is not added."""
        ...

    def snapshot(self, weights: Path, state: Path) -> None:
        """Write both files. The names are temporary; the shell renames, and sets the state's learned_net."""
        ...

    def restore(self, state: Path) -> None:
        """Go on from a state and the weights it names, exactly: data position and random state included."""
        ...

    def load_weights(self, path: Path) -> list[str]:
        """Take over what fits by layer name and shape; return a line for each layer: matched, or not and why."""
        ...

    def close(self) -> None:
        """End worker processes; the backend cannot be used afterwards."""
        ...


def create(name: str, solver: Solver, settings: Settings) -> Backend:
    """Return the backend of this name, at iteration 0 with filled weights."""
    if name not in BACKENDS:
        raise PrototxtGenError(f"there is no backend {name!r}{nearest(name, BACKENDS)}")
    try:
        module: Any = importlib.import_module(f"prototxt_gen.train.{BACKENDS[name]}")
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise missing(error.name) from None
    made: Backend = module.create(solver, settings)
    return made


def named_outputs(blobs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    """Return the numbers of output blobs by name: `accuracy`, or `scores[0]`, `scores[1]` where there are several."""
    named: dict[str, float] = {}
    for name, blob in blobs.items():
        values = blob.reshape(-1).tolist()
        if len(values) == 1:
            named[name] = values[0]
        elif len(values) <= MOST_NUMBERS:
            named |= {f"{name}[{index}]": value for index, value in enumerate(values)}
    return named
