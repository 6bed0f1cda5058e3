"""Training steps, PyTorch against real Caffe: images a second of forward, backward and update, same net and threads.

On a machine with a GPU also Attention-56 there, by precision, compilation and checkpointing, at batch 32 and at the
largest batch that fits.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Result
from prototxt_gen import model
from prototxt_gen.data.make import make
from prototxt_gen.net.solver import read_solver
from prototxt_gen.train.backend import Settings, create

TITLE = "Training"
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 operations a second, as the makers state them."""
OPERATIONS = 3 * 2 * 6_270_836_736
"""Of Attention-56 for one image: forward and twice that backward, a multiply and an add for each MAC."""
IMAGES = 256


@dataclass(frozen=True)
class Case:
    """A net of the zoo, a batch, and how many steps are timed."""

    net: str
    batch: int
    steps: int


ON_CPU = (Case("attention-56-cifar", 64, 3), Case("attention-56", 4, 2))


def write(case: Case, folder: Path) -> Path:
    """Write the case's net, solver and a data set of noise; return the solver's path."""
    made = model(case.net, kind="lmdb", batch=case.batch, train="images", test="images", solver={"base_lr": 0.001})
    size = made.deploy.inputs[0].known_shape[-1]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, size, size, 3), dtype="uint8")
    np.savez(folder / "images.npz", x=images, y=rng.integers(0, 10, IMAGES))
    make(folder / "images.npz", folder / "images", to="lmdb")
    made.write(folder)
    return folder / "solver.prototxt"


def speed(backend: str, case: Case, settings: Settings | None = None) -> float:
    """Return images a second."""
    with tempfile.TemporaryDirectory() as name:
        solver = read_solver(write(case, Path(name)))
        before = Path.cwd()
        os.chdir(name)
        try:
            trainer = create(backend, solver, settings or Settings())
            try:
                return _timed(trainer, case)
            finally:
                trainer.close()
        finally:
            os.chdir(before)


def _timed(trainer: Any, case: Case) -> float:
    trainer.step()
    start = time.perf_counter()
    for _ in range(case.steps):
        trainer.step()  # it reads the loss, so a card has done its work when it returns
    return case.batch * case.steps / (time.perf_counter() - start)


def results() -> Iterator[Result]:
    """Yield what was measured and what is wanted."""
    for case in ON_CPU:
        speeds = {backend: speed(backend, case) for backend in ("pycaffe", "torch")}
        for backend, found in speeds.items():
            yield Result(f"{case.net}, batch {case.batch}, {backend}", f"{found:.2f} images/s")
        ratio = speeds["torch"] / speeds["pycaffe"]
        yield Result("PyTorch against real Caffe", f"{ratio:.1f}×", "3×", ratio >= 3)
    yield from on_gpu()


def on_gpu() -> Iterator[Result]:
    """Yield the lines of a card; one line that says so where there is none."""
    import torch

    if not torch.cuda.is_available():
        yield Result("on a GPU", "not measured: there is none here")
        return
    for precision, compiled, sparing in (
        ("fp32", False, False),
        ("bf16", False, False),
        ("bf16", False, True),
        ("bf16", True, False),
    ):
        settings = Settings(gpu=0, precision=precision, compile=compiled, memory_efficient=sparing)
        words = f"{precision}{', compiled' * compiled}{', checkpointed' * sparing}"
        batch = 32
        while (found := _on_card(settings, batch)) is not None:
            yield Result(f"{torch.cuda.get_device_name(0)}, {words}, batch {batch}", found)
            batch *= 2


def _on_card(settings: Settings, batch: int) -> str | None:
    """Return speed, memory and share of the peak; None where the card's memory is too small."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        found = speed("torch", Case("attention-56", batch, 10), settings)
    except torch.cuda.OutOfMemoryError:
        return None
    peak = next((value for key, value in PEAKS.items() if key in torch.cuda.get_device_name(0)), None)
    share = f", {found * OPERATIONS / peak:.1%} of the bf16 peak" if peak else ""
    return f"{found:.0f} images/s, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB{share}"
