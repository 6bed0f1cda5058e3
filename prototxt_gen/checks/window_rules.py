"""Windows of Pooling that hold not one pixel: a stride longer than the kernel, and no padding."""

from __future__ import annotations

from collections.abc import Iterator

from prototxt_gen.analysis import Row
from prototxt_gen.checks.problem import WARNING, Phase, Problem, of_layer
from prototxt_gen.ir import show
from prototxt_gen.layers.vision.pooling import PoolingParameter, pool_window

_TOP = {
    "MAX": "their maximum is -3.4e38, and in training Caffe adds their gradient to memory before the blob's",
    "AVE": "their mean is no number",
}


def empty_windows(phase: Phase) -> Iterator[Problem]:
    """Source: src/caffe/layers/pooling_layer.cpp PoolingLayer::Forward_cpu, Backward_cpu."""
    for row in phase.rows:
        pool = row.layer.get(PoolingParameter).pool
        if row.layer.type == "Pooling" and row.known and pool in _TOP and _is_beyond(row):
            bottom = show(row.bottoms[0])
            message = f"its last windows begin beyond its bottom {bottom}: {_TOP[pool]}"
            yield of_layer(WARNING, "empty-window", row.layer, message)


def _is_beyond(row: Row) -> bool:
    """Whether the last row or column of windows lies beyond the image."""
    bottom, top = row.bottoms[0], row.tops[0]
    assert bottom is not None and top is not None
    window = pool_window(row.layer, (bottom[2], bottom[3]))
    lasts = ((count - 1) * stride for count, stride in zip(top[2:], window.stride, strict=True))
    return any(last >= size + pad for last, size, pad in zip(lasts, bottom[2:], window.begin, strict=True))


WINDOW_RULES = (empty_windows,)
