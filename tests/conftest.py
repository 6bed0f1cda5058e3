"""Every test draws the same numbers, whichever tests ran before it in its process."""

from __future__ import annotations

import zlib

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _own_numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin the generators anew that a test's module draws from: its RNG, and torch's own."""
    module = request.module
    if hasattr(module, "RNG"):
        monkeypatch.setattr(module, "RNG", np.random.default_rng(zlib.crc32(request.node.name.encode())))
    if hasattr(module, "torch"):
        module.torch.manual_seed(1)
