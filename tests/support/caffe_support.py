"""Helpers of tests with real Caffe: importing it or skipping the test, nets from text, numeric gradients."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen.common.errors import RuntimeMissingError
from prototxt_gen.real_caffe import load

Array = np.ndarray[Any, Any]


def caffe_or_skip() -> Any:
    """Return the module `caffe`. If it is missing, skip the test, or fail if PROTOTXT_GEN_REQUIRE_CAFFE=1."""
    try:
        return load()
    except RuntimeMissingError as error:
        if os.environ.get("PROTOTXT_GEN_REQUIRE_CAFFE") == "1":
            pytest.fail(f"PROTOTXT_GEN_REQUIRE_CAFFE=1, but: {error}")
        pytest.skip(str(error))


def make_net(folder: Path, text: str, train: bool = False) -> Any:
    """Return the Caffe net of a prototxt text."""
    caffe = caffe_or_skip()
    file = folder / "net.prototxt"
    file.write_text(text, encoding="utf-8")
    return caffe.Net(str(file), caffe.TRAIN if train else caffe.TEST)


def input_layer(name: str, shape: tuple[int, ...]) -> str:
    """Return the prototxt of an Input layer."""
    dims = " ".join(f"dim: {size}" for size in shape)
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'


def numeric_gradient(function: Callable[[Array], Array], at: Array, top_diff: Array, step: float = 1e-5) -> Array:
    """Return d(sum of top_diff * function(x)) / dx by central differences, in float64."""
    at = at.astype(np.float64)
    gradient = np.empty_like(at)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = ((function(up) - function(down)) * top_diff).sum() / (2 * step)
    return gradient
