"""Blocks: functions of Values that compose layers. A researcher's own block is one more such function."""

from prototxt_gen.blocks.attention import ATTENTION_WORDS, NEXT_WORDS, AttentionModule
from prototxt_gen.blocks.kit import Kit, Style
from prototxt_gen.blocks.units import Unit, post_activation, pre_activation

__all__ = [
    "ATTENTION_WORDS",
    "NEXT_WORDS",
    "AttentionModule",
    "Kit",
    "Style",
    "Unit",
    "post_activation",
    "pre_activation",
]
