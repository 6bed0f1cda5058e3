"""An estimate of the memory that training needs, and of the memory that is free, before training starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.analysis import FLOAT_BYTES, Analysis

_SOLVERS_WITH_TWO_HISTORIES = ("AdaDelta", "Adam")
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class MemoryEstimate:
    """Estimated memory of training in bytes.

    `fixed_bytes`: parameters with gradients and histories, and test nets. `bytes_per_image`: blobs of one image.
    """

    fixed_bytes: int
    bytes_per_image: int
    batch_size: int

    @property
    def total_bytes(self) -> int:
        """The total in bytes."""
        return self.fixed_bytes + self.bytes_per_image * self.batch_size

    def largest_batch(self, free: int) -> int:
        """Return the largest batch size that fits into `free` bytes."""
        return max(0, (free - self.fixed_bytes) // self.bytes_per_image) if self.bytes_per_image else self.batch_size

    def sentence(self, free: int | None) -> str:
        """Return the estimate as a sentence for the user; `free` is the free memory in bytes, None if unknown."""
        text = f"memory: about {_format_bytes(self.total_bytes)} for batches of {self.batch_size}"
        if free is None:
            return text
        fits = f"the largest batch that fits is about {self.largest_batch(free)}"
        warning = "  TOO LITTLE: " if self.total_bytes > free else "; "
        return f"{text}, {_format_bytes(free)} are free{warning}{fits}"


def estimate_memory(train: Analysis, tests: Sequence[Analysis], solver_type: str, batch_size: int) -> MemoryEstimate:
    """Estimate the memory from the shapes in the analyses.

    Counted are each blob with its gradient (in test nets without), and the parameters with gradient and histories. Not
    counted are layers of unknown shape and the buffers into which convolutions unroll images.
    """
    histories = 2 if solver_type in _SOLVERS_WITH_TWO_HISTORIES else 1
    fixed_bytes = train.parameters * FLOAT_BYTES * (2 + histories)
    fixed_bytes += sum(test.activation_bytes for test in tests)
    return MemoryEstimate(fixed_bytes, 2 * train.activation_bytes // max(1, batch_size), batch_size)


def free_memory() -> int | None:
    """Return the bytes that this process can still allocate on the machine and in its container; None if unknown."""
    limits = [value for value in (_free_on_machine(), *map(_free_in_container, _CGROUPS)) if value is not None]
    return min(limits, default=None)


def _free_on_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _free_in_container(files: tuple[str, str]) -> int | None:
    try:
        limit, used = (int(Path(file).read_text()) for file in files)
    except (OSError, ValueError):  # no container, or "max"
        return None
    return max(0, limit - used) if limit < 1 << 60 else None


def _format_bytes(count: int) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
