"""Makes the random numbers of a test independent of the tests that ran before it."""

from __future__ import annotations

import zlib

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seed_generators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed the generators that the test's module uses: its RNG, and torch's."""
    module = request.module
    if hasattr(module, "RNG"):
        monkeypatch.setattr(module, "RNG", np.random.default_rng(zlib.crc32(request.node.name.encode())))
    if hasattr(module, "torch"):
        module.torch.manual_seed(1)
