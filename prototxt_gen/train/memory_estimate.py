"""How much memory training takes, before it is taken."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.analysis import FLOAT_BYTES, Analysis

_TWO_HISTORIES = ("AdaDelta", "Adam")
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class Estimate:
    """Bytes: `fixed` for the learned arrays, `per_image` for the blobs of one image; `batch` images at once."""

    fixed: int
    per_image: int
    batch: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.fixed + self.per_image * self.batch

    def largest_batch(self, free: int) -> int:
        """Return the most images a batch may have in so many bytes."""
        return max(0, (free - self.fixed) // self.per_image) if self.per_image else self.batch

    def words(self, free: int | None) -> str:
        """Return a sentence for the user."""
        text = f"memory: about {_shown(self.total)} for batches of {self.batch}"
        if free is None:
            return text
        fits = f"the largest batch that fits is about {self.largest_batch(free)}"
        warning = "  TOO LITTLE: " if self.total > free else "; "
        return f"{text}, {_shown(free)} are free{warning}{fits}"


def estimate(train: Analysis, tests: Sequence[Analysis], solver_type: str, batch: int) -> Estimate:
    """Estimate from shapes: each blob with its gradient, in test nets without; parameters with gradient and history.

    What is not known of the net is not counted, nor are the buffers that convolutions unroll images into.
    """
    histories = 2 if solver_type in _TWO_HISTORIES else 1
    fixed = train.parameters * FLOAT_BYTES * (2 + histories)
    fixed += sum(test.activation_bytes for test in tests)
    return Estimate(fixed, 2 * train.activation_bytes // max(1, batch), batch)


def free_memory() -> int | None:
    """Return the bytes that this process may still take: of the machine, and of its container; None if unknown."""
    known = [value for value in (_machine(), *map(_container, _CGROUPS)) if value is not None]
    return min(known, default=None)


def _machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _container(files: tuple[str, str]) -> int | None:
    try:
        limit, used = (int(Path(file).read_text()) for file in files)
    except (OSError, ValueError):  # no container, or "max"
        return None
    return max(0, limit - used) if limit < 1 << 60 else None


def _shown(count: int) -> str:
    return f"{count / 1e9:.2g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
