"""The keyword arguments that all functions of `converters` share: how a net and its weights are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypedDict

from converters.common.preprocessing import Preprocessing


class ReadingArguments(TypedDict, total=False):
    """Keyword arguments of `converters.read_net_with_weights`, where each is described."""

    phase: str
    stages: Sequence[str]
    level: int
    shapes: Mapping[str, tuple[int, ...]] | None
    input_size: tuple[int, ...]
    dialect: str | None
    bn_statistic: str | None
    ignore_fields: Collection[str]
    crop_rule: str | None
    anchor_rule: str | None
    preprocessing: Preprocessing | None
