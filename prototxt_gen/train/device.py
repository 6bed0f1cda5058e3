"""Where a net runs and in which numbers: device, precision, order of the axes in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError, nearest
from prototxt_gen.ir import Value
from prototxt_gen.net.solver import Solver
from prototxt_gen.runtime.torch_net import TorchNet
from prototxt_gen.train.backend import Settings

PRECISIONS = ("fp32", "tf32", "bf16")
"""IEEE float32 throughout, as Caffe; float32 whose products an NVIDIA card rounds to 10 bits; bfloat16 by autocast."""


@dataclass(frozen=True)
class Hardware:
    """`channels_last` keeps images as N×H×W×C in memory, which convolutions like better; no number changes by it."""

    device: torch.device
    precision: str = "fp32"
    channels_last: bool = True

    @classmethod
    def of(cls, solver: Solver, settings: Settings) -> Hardware:
        """Return what a run uses; PrototxtGenError where it is not there."""
        if settings.precision not in PRECISIONS:
            known = f"there are {', '.join(PRECISIONS)}{nearest(settings.precision, PRECISIONS)}"
            raise PrototxtGenError(f"there is no precision {settings.precision!r}; {known}")
        made = cls(_device(solver, settings.gpu), settings.precision)
        if made.device.type == "cuda":
            made.set_up_card()
        return made

    def set_up_card(self) -> None:
        """Make the card this process's own, and let it find its fastest kernels for the precision."""
        torch.cuda.set_device(self.device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        torch.backends.cudnn.benchmark = True

    @property
    def mixed(self) -> bool:
        """Whether most of a net runs in bfloat16."""
        return self.precision == "bf16"

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context that a net's forward pass runs in."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.mixed else nullcontext()

    def place(self, net: TorchNet) -> None:
        """Move a net to the device, in the order of axes wanted."""
        net.to(self.device)
        if self.channels_last:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def tensors(self, values: Iterable[Value], arrays: Mapping[str, np.ndarray[Any, Any]]) -> list[Tensor]:
        """Return the blobs on the device, in the order of the values."""
        return [self._tensor(arrays[value.blob]) for value in values]

    def _tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.contiguous(memory_format=torch.channels_last) if self._is_image(tensor) else tensor

    def _is_image(self, tensor: Tensor) -> bool:
        return self.channels_last and tensor.dim() == 4


def _device(solver: Solver, gpu: int | None) -> torch.device:
    """Return the card asked for, else the process's own, unless the solver says CPU; below 0 is the CPU."""
    there = torch.cuda.device_count()
    if gpu is None:
        by_solver = solver.params.has("solver_mode") and solver.params.solver_mode == "CPU"
        gpu = int(os.environ.get("LOCAL_RANK", "0")) if there and not by_solver else -1
    elif int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise PrototxtGenError("several processes train on a card each, the one of their number: leave out --gpu")
    elif gpu >= there:
        raise RuntimeMissingError(f"there is no card {gpu}: PyTorch {torch.__version__} sees {there}")
    return torch.device("cuda", gpu) if gpu >= 0 else torch.device("cpu")
