"""Random weights like those of a trained net: the blobs of a deep net neither vanish nor overflow."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.weights import Weights

Array = np.ndarray[Any, Any]


def sane_weights(analysis: Analysis, seed: int = 0) -> Weights:
    """Return weights for all learned blobs, with moving statistics fitted to the net's blobs for noise input."""
    import torch

    from prototxt_gen.runtime.torch_net import TorchNet

    rng = np.random.default_rng(seed)
    made = {row.layer.name: _blobs(row, rng) for row in analysis.rows if row.blobs}
    net = TorchNet(analysis)
    blobs = {v: torch.from_numpy(rng.uniform(-1, 1, analysis.shapes[v]).astype("float32")) for v in net.inputs}
    with torch.no_grad():
        for step in net.lowered_layers:
            bottoms = [blobs[value] for value in step.layer.bottoms]
            if step.layer.name in made:
                _fit(made[step.layer.name], bottoms[0].numpy() if bottoms else np.zeros((1, 1)))
                step.layer_type.load(step.module, made[step.layer.name])
            tops = step.module(*bottoms)
            blobs.update(zip(step.layer.tops, tops if isinstance(tops, tuple) else (tops,), strict=False))
    return Weights(made)


def _fit(blobs: dict[str, Array], bottom: Array) -> None:
    """Set moving statistics to about those of the bottom."""
    if "mean" not in blobs:
        return
    axes = tuple(axis for axis in range(bottom.ndim) if axis != 1)
    # half the mean: all of it would cancel what noise, alike everywhere, leaves of the signal, and magnify rounding
    mean = 0.5 * bottom.mean(axes)
    # not the variance of this one image, which may be next to nothing on a small map, but what lies around 0 too
    variance = 0.5 * bottom.var(axes) + 0.5 * np.square(bottom).mean() + 0.01
    factor = float(blobs["factor"].reshape(-1)[0]) if "factor" in blobs else 1.0
    shape = blobs["mean"].shape
    blobs["mean"] = (mean * factor).reshape(shape).astype("float32")
    if "inverse_std" in blobs:
        blobs["inverse_std"] = ((variance + 1e-5) ** -0.5).reshape(shape).astype("float32")
    else:
        blobs["variance"] = (variance * factor).reshape(shape).astype("float32")


def _blobs(row: Row, rng: np.random.Generator) -> dict[str, Array]:
    return {role: _draw(role, spec.shape, rng).astype("float32") for role, spec in row.blobs.items()}


def _draw(role: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    role = role.rstrip("0123456789").removeprefix("inner_")  # a DenseBlock has a blob for each of its steps
    if role in ("variance", "inverse_std", "slope", "scale"):
        return rng.uniform(0.6, 1.4, shape)
    if role == "factor":
        return np.full(shape, 1.0 + rng.uniform())
    if role in ("bias", "shift", "mean"):
        return rng.normal(0, 0.1, shape)
    fan_in = int(np.prod(shape[1:])) or 1
    return rng.normal(0, fan_in**-0.5, shape)
