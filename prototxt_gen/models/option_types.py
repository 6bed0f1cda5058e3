"""Types of the keyword arguments of `build` and `model`, for editors and type checkers."""

from __future__ import annotations

from typing import TypedDict


class NetOptions(TypedDict, total=False):
    """The fields of `ResidualNet` that a caller may change; see there for their meaning."""

    unit: str
    modules: tuple[int, ...]
    units: tuple[int, ...]
    ptr: tuple[int, int, int]
    depths: tuple[int, ...]
    width: int
    expansion: int
    cardinality: int
    stem: str
    classes: int
    input_size: int
    channels: int
    attention: str
    mask_activation: str
    mask: str
    bn: str
    upsampling: str
    note: str


class ModelOptions(NetOptions, total=False):
    """The options of `NetOptions`, and the fields of `DataOptions`."""

    kind: str
    train: str
    test: str
    batch: int
    test_batch: int
    crop: int
    resize: int
    mirror: bool
    mean: tuple[float, ...]
    scale: float
    pad: int
