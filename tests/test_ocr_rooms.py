"""Types of caffe_ocr, beside loops that follow its C++ step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import NetError, UnsupportedError
from tests.test_window_rooms import both

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(13)


def decoded(x: Array, blank: int, merges: bool) -> Array:
    steps, batch, classes = x.shape
    top = np.full((batch, steps, 1, 1), -1.0)
    for n in range(batch):
        before, found = -1, []
        for t in range(steps):
            best = 0
            for c in range(1, classes):
                if x[t, n, c] > x[t, n, best]:
                    best = c
            if best != blank and not (merges and best == before):
                found.append(best)
            before = best
        top[n, : len(found), 0, 0] = found
    return top


@pytest.mark.parametrize(("blank", "classes"), [(0, 3), (2, 3), (-1, 4)])
@pytest.mark.parametrize("merges", [True, False])
def test_greedy_decoder(blank: int, classes: int, merges: bool) -> None:
    x = RNG.integers(0, 3, (12, 5, classes)).astype("float64")  # with ties: the first class counts
    params = f"ctc_decoder_param {{ blank_index: {blank} ctc_merge_repeated: {str(merges).lower()} }}"
    (got,) = both("CTCGreedyDecoder", [x], params)
    np.testing.assert_array_equal(got, decoded(x, blank % classes, merges))


def test_greedy_decoder_refuses_what_forks_read_in_two_ways() -> None:
    with pytest.raises(UnsupportedError, match="differs among forks"):
        both("CTCGreedyDecoder", [np.zeros((4, 2, 3)), np.zeros((4, 2))], "")
    with pytest.raises(NetError, match="blank_index 3 is none of the 3 classes"):
        both("CTCGreedyDecoder", [np.zeros((4, 2, 3))], "ctc_decoder_param { blank_index: 3 }")
