"""Device, number format and memory format (channels last or not) of a training run in PyTorch."""

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
"""fp32: IEEE float32, as Caffe; tf32: float32 with GPU products rounded to 10 bits; bf16: bfloat16 by autocast."""


@dataclass(frozen=True)
class Hardware:
    """Where and how a net runs.

    `channels_last` stores images as N×H×W×C in memory, which makes convolutions faster and changes no result.
    """

    device: torch.device
    precision: str = "fp32"
    channels_last: bool = True

    @classmethod
    def of(cls, solver: Solver, settings: Settings) -> Hardware:
        """Return the hardware of a run. Raises PrototxtGenError for an unknown precision or a missing GPU."""
        if settings.precision not in PRECISIONS:
            choices = f"there are {', '.join(PRECISIONS)}{nearest(settings.precision, PRECISIONS)}"
            raise PrototxtGenError(f"there is no precision {settings.precision!r}; {choices}")
        hardware = cls(_device(solver, settings.gpu), settings.precision)
        if hardware.device.type == "cuda":
            hardware.set_up_gpu()
        return hardware

    def set_up_gpu(self) -> None:
        """Make the GPU the current device of this process and let cuDNN search for its fastest kernels."""
        torch.cuda.set_device(self.device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        torch.backends.cudnn.benchmark = True

    @property
    def is_mixed_precision(self) -> bool:
        """Whether the net runs under bfloat16 autocast."""
        return self.precision == "bf16"

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast context for a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.is_mixed_precision else nullcontext()

    def move_to_device(self, net: TorchNet) -> None:
        """Move a net to the device and to the memory format of this run."""
        net.to(self.device)
        if self.channels_last:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def tensors(self, values: Iterable[Value], arrays: Mapping[str, np.ndarray[Any, Any]]) -> list[Tensor]:
        """Return the arrays of the values as tensors on the device, in the order of the values."""
        return [self._tensor(arrays[value.blob]) for value in values]

    def _tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.contiguous(memory_format=torch.channels_last) if self._is_image(tensor) else tensor

    def _is_image(self, tensor: Tensor) -> bool:
        return self.channels_last and tensor.dim() == 4


def missing_gpu_warnings(solver: Solver, settings: Settings, device: torch.device) -> list[str]:
    """Return a warning if the solver has `solver_mode: GPU` but, as there is no GPU, the run is on the CPU."""
    wants_gpu = solver.params.has("solver_mode") and solver.params.solver_mode == "GPU"
    if settings.gpu is not None or not wants_gpu or device.type != "cpu":
        return []
    return [f"solver_mode: GPU, but PyTorch {torch.__version__} sees no GPU: the net is trained on the CPU"]


def _device(solver: Solver, gpu: int | None) -> torch.device:
    """Return the requested GPU (below 0: the CPU).

    Default: the GPU of this process's LOCAL_RANK, or else of the solver's device_id, but the CPU if there is no GPU or
    the solver has `solver_mode: CPU`.
    """
    gpu_count = torch.cuda.device_count()
    if gpu is None:
        solver_wants_cpu = solver.params.has("solver_mode") and solver.params.solver_mode == "CPU"
        gpu = _default_gpu(solver) if gpu_count and not solver_wants_cpu else -1
    elif int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise PrototxtGenError("several processes train on one GPU each, chosen by their rank: leave out --gpu")
    if gpu >= gpu_count:
        raise RuntimeMissingError(f"there is no GPU {gpu}: PyTorch {torch.__version__} sees {gpu_count}")
    return torch.device("cuda", gpu) if gpu >= 0 else torch.device("cpu")


def _default_gpu(solver: Solver) -> int:
    return int(os.environ.get("LOCAL_RANK", solver.params.device_id))
