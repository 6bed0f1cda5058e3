"""Constants and ONNX nodes that BatchNorm and BN share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from prototxt_gen.layers.onnx_graph import OnnxGraph

    Array = np.ndarray[Any, Any]

PHASE, RUNNING, BATCH = "phase", "running", "batch"
"""Which statistics normalise. PHASE: the batch's in training, the moving ones in TEST. RUNNING, BATCH: always these."""
INVERSE_STD, VARIANCE = "inverse_std", "variance"
"""Roles of BN's fourth blob, by its meaning: 1 / sqrt(variance + eps), or the variance."""


def onnx_by_given_statistics(
    g: OnnxGraph, bottom: str, eps: float, scale: Array, bias: Array, mean: Array, variance: Array
) -> str:
    """Write a normalisation by the given mean and variance, C elements each, as BatchNormalization."""
    arrays = [array.reshape(-1).astype("float32") for array in (scale, bias, mean, variance)]
    return g.op("BatchNormalization", bottom, *arrays, epsilon=eps)


def onnx_by_batch_statistics(
    g: OnnxGraph, bottom: str, eps: float, affine: Sequence[Array], before_root: bool = True
) -> str:
    """Write a normalisation by the statistics of the batch, then a scale and a bias if `affine` has them.

    `before_root`: eps is added to the variance; otherwise to its square root.
    """
    rank = len(g.shape(bottom))
    axes = g.const([axis for axis in range(rank) if axis != 1], "axes")
    centred = g.op("Sub", bottom, g.op("ReduceMean", bottom, axes))
    variance = g.op("ReduceMean", g.op("Mul", centred, centred), axes)
    added = g.const(eps, "eps")
    divisor = g.op("Sqrt", g.op("Add", variance, added)) if before_root else g.op("Add", g.op("Sqrt", variance), added)
    top = g.op("Div", centred, divisor)
    for kind, array in zip(("Mul", "Add"), affine, strict=False):
        top = g.op(kind, top, array.reshape(-1, *[1] * (rank - 2)))
    return top
