"""For how many iterations two trainings that differ only by rounding stay close, measured in float64.

When rounding makes a ReLU active, or changes which element is a maximum, a gradient changes at once. In float32, the
iteration at which that happens depends on the CPU, the number of threads and the BLAS. In float64 it does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prototxt_gen.net.solver import read_solver
from prototxt_gen.runtime.torch_net import TorchNet
from prototxt_gen.train.backend import Settings
from prototxt_gen.train.device import Hardware
from prototxt_gen.train.input_feed import InputFeed
from prototxt_gen.train.torch_backend import TorchBackend
from tests.support.torch_support import Batches, blobs_of, worst

NOISE = 2.0**-20
"""Relative; sixteen times the most by which float32 rounds a number."""


class Double(Hardware):
    """A device that gives the input data as float64."""

    def _tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        return super()._tensor(array).double()


class ExactBackend(TorchBackend):
    """The PyTorch trainer in float64."""

    def _set_up(self, *arguments: Any) -> None:
        self.hardware = Double(**vars(self.hardware))
        super()._set_up(*arguments)

    def _torch_net(self, feed: InputFeed) -> TorchNet:
        return super()._torch_net(feed).double()


def exact(file: Path, batches: Batches | None = None, settings: Settings | None = None, **more: Any) -> ExactBackend:
    """Return our backend in float64; without worker processes unless the settings say so."""
    return ExactBackend(read_solver(file), settings or Settings(workers=0), batches, **more)


class Spread:
    """A float64 training, and two more whose first weights differ from its own by NOISE.

    Two float32 trainings differ less, as they round less: while these stay within a distance, those do.
    """

    def __init__(self, file: Path, start: Path, batches: Batches | None = None, **more: Any) -> None:
        self.runs = [exact(file, batches, **more) for _ in range(3)]
        self.distance = 0.0
        for seed, run in enumerate(self.runs):
            run.load_weights(start)
            if seed:
                _disturb(run, torch.Generator().manual_seed(seed))

    def step(self) -> float:
        """Run one iteration of each; return the greatest distance between their blobs so far."""
        for run in self.runs:
            run.step()
        first, *others = map(blobs_of, self.runs)
        self.distance = max(self.distance, *(worst(other, first)[0] for other in others))
        return self.distance


@torch.no_grad()
def _disturb(run: TorchBackend, noise: torch.Generator) -> None:
    for parameter in run.net.parameters():
        parameter.mul_(1 + NOISE * torch.randn(parameter.shape, generator=noise))
