"""Random weights that keep a deep net's numbers in bounds, for tests: what a trained net's would be like."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.weights import Weights

Array = np.ndarray[Any, Any]


def sane_weights(analysis: Analysis, seed: int = 0, statistic: str = "inverse_std") -> Weights:
    """Return weights for every layer that learns; `statistic` is what BN's fourth blob means."""
    rng = np.random.default_rng(seed)
    found = {row.layer.name: _blobs(row, rng) for row in analysis.rows if row.blobs}
    renamed = {
        name: {
            statistic if role == "inverse_std" else role: _meant(role, blob, statistic) for role, blob in blobs.items()
        }
        for name, blobs in found.items()
    }
    return Weights(renamed)


def _meant(role: str, blob: Array, statistic: str) -> Array:
    return blob if role != "inverse_std" or statistic == "inverse_std" else (blob**-2 - 1e-5).astype("float32")


def _blobs(row: Row, rng: np.random.Generator) -> dict[str, Array]:
    return {role: _draw(row, role, spec.shape, rng).astype("float32") for role, spec in row.blobs.items()}


def _draw(row: Row, role: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    assert layers.find(row.layer.type) is not None
    if role in ("variance", "inverse_std", "slope", "scale"):
        return rng.uniform(0.6, 1.4, shape)
    if role == "factor":
        return np.full(shape, 1.0 + rng.uniform())
    if role in ("bias", "shift", "mean"):
        return rng.normal(0, 0.1, shape)
    fan_in = int(np.prod(shape[1:])) or 1
    return rng.normal(0, (1.6 / fan_in) ** 0.5, shape)
