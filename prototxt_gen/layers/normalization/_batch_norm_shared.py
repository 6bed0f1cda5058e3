"""What BatchNorm and BN share: which statistics normalise, and the ONNX forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from prototxt_gen.layers.onnx_graph import OnnxGraph

    Array = np.ndarray[Any, Any]

PHASE, RUNNING, BATCH = "phase", "running", "batch"
"""Which statistics normalise: those of the batch in training and the moving ones else, or always the one kind."""
INVERSE_STD, VARIANCE = "inverse_std", "variance"
"""What the fourth blob holds, and so its role: 1 / sqrt(variance + eps), or the variance."""


def onnx_running(g: OnnxGraph, bottom: str, eps: float, scale: Array, bias: Array, mean: Array, variance: Array) -> str:
    """Write a normalisation by given statistics, each of C numbers."""
    arrays = [array.reshape(-1).astype("float32") for array in (scale, bias, mean, variance)]
    return g.op("BatchNormalization", bottom, *arrays, epsilon=eps)


def onnx_batch(g: OnnxGraph, bottom: str, eps: float, affine: Sequence[Array], before_root: bool = True) -> str:
    """Write a normalisation by the batch's own statistics, then, where given, times a scale, plus a bias.

    `before_root`: eps is added to the variance, else to its root.
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
