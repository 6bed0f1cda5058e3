"""The PyTorch trainer with torch.compile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen.train.backend import Settings
from tests.support import torch_support as support
from tests.support.parity import exact
from tests.train.test_torch_backend import SOLVER, _images, _one_thread, _run, _state, _text

__all__ = ["_one_thread"]


def _compiler() -> str | None:
    """Return the C++ compiler that torch.compile would call on the CPU."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


pytestmark = [
    pytest.mark.skipif(_compiler() is None, reason="torch.compile needs a C++ compiler on the CPU, and there is none"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # its compiler's own
]
STATISTICS = {"bn1": (2, 3), "bn2": (0, 1, 2)}
"""Which blobs of a layer are moving statistics."""


@pytest.fixture(autouse=True)
def _without_compile_cache() -> Iterator[None]:
    """Disable the cache of torch.compile.

    Its key is the graph only. With ATEN_CPU_CAPABILITY=default it returns code for AVX2, which then does not compile.
    """
    from torch._functorch import config as functorch
    from torch._inductor import config as inductor

    with inductor.patch(fx_graph_cache=False), functorch.patch(enable_autograd_cache=False):
        yield


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_run_learns_the_same(checkpointing: bool, tmp_path: Path) -> None:
    """Moving statistics are equal too, in float64, and the module is compiled only once."""
    from torch._dynamo.utils import counters

    file = support.write(tmp_path, _text(), SOLVER)
    plain = _run(exact(file, _images()), 10)
    counters.clear()
    compiled = _run(exact(file, _images(), Settings(workers=0, compile=True, memory_efficient=checkpointing)), 10)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert support.worst(_state(compiled), _state(plain))[0] < 1e-6


def test_in_float32_the_first_step_is_the_same(tmp_path: Path) -> None:
    """The loss and the moving statistics. What comes later depends on which ReLU rounding moves to its other side."""
    file = support.write(tmp_path, _text(), SOLVER)
    plain, compiled = (support.backend(file, _images(), Settings(workers=0, compile=on)) for on in (False, True))
    assert compiled.step().loss == pytest.approx(plain.step().loss, rel=1e-5)
    mine, others = support.blobs_of(compiled), support.blobs_of(plain)
    for layer, places in STATISTICS.items():
        for place in places:
            wanted = others[layer][place]
            np.testing.assert_allclose(mine[layer][place], wanted, rtol=0, atol=1e-5 * abs(wanted).max())
