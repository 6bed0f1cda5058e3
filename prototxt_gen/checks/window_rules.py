"""Rule against pooling windows that contain no pixel, which occur if the stride is larger than the kernel."""

from __future__ import annotations

from collections.abc import Iterator

from prototxt_gen.analysis import Row
from prototxt_gen.checks.problem import WARNING, PhaseNet, Problem, layer_problem
from prototxt_gen.ir import show
from prototxt_gen.layers.vision.pooling import PoolingParameter, pool_window

_EFFECT = {
    "MAX": "their maximum is -3.4e38, and in training Caffe writes their gradient to memory outside the blob",
    "AVE": "their mean is NaN",
}


def empty_windows(phase: PhaseNet) -> Iterator[Problem]:
    """Yield a problem for each Pooling layer whose last windows lie outside its bottom.

    Source: src/caffe/layers/pooling_layer.cpp PoolingLayer::Forward_cpu, Backward_cpu.
    """
    for row in phase.rows:
        pool = row.layer.get(PoolingParameter).pool
        if row.layer.type == "Pooling" and row.known and pool in _EFFECT and _has_window_beyond(row):
            bottom = show(row.bottoms[0])
            message = f"its last windows lie outside its bottom {bottom}: {_EFFECT[pool]}"
            yield layer_problem(WARNING, "empty-window", row.layer, message)


def _has_window_beyond(row: Row) -> bool:
    """Return whether the last row or column of windows lies outside the image."""
    bottom, top = row.bottoms[0], row.tops[0]
    assert bottom is not None and top is not None
    window = pool_window(row.layer, (bottom[2], bottom[3]))
    lasts = ((count - 1) * stride for count, stride in zip(top[2:], window.stride, strict=True))
    return any(last >= size + pad for last, size, pad in zip(lasts, bottom[2:], window.begin, strict=True))


WINDOW_RULES = (empty_windows,)
