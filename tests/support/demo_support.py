"""A small demo run, shared by all tests that examine it: all its steps with few images and iterations."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from prototxt_gen.demo.results import DemoResults
from prototxt_gen.demo.run_demo import DemoOptions, run_demo
from prototxt_gen.demo.steps import ITERATIONS_A_MINUTE

Array = np.ndarray[Any, Any]
ITERATIONS = 6
TEST_IMAGES = 40


def write_digits(folder: Path) -> Path:
    """Write MNIST's four files with bars instead of digits: the class is the position of the bar."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 150), ("t10k", TEST_IMAGES)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pixels = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(pixels, labels, strict=True):
            image[:, 2 * label + 3 : 2 * label + 6] = 230
        for kind, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + values.tobytes())
    return folder


@cache
def small_demo_run() -> tuple[DemoOptions, DemoResults, list[str]]:
    """Run the demo with a zoo of one net; return its options, its results, and the lines it printed."""
    home = Path(mkdtemp(prefix="demo-test-"))
    lines: list[str] = []
    minutes, bars = ITERATIONS / ITERATIONS_A_MINUTE, write_digits(home / "bars")
    options = DemoOptions(home / "out", minutes, data=bars, zoo=("attention-56-cifar",), say=lines.append)
    return options, run_demo(options), lines
