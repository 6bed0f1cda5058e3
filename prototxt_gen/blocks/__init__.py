"""Blocks: functions of Values that compose layers. A researcher's own block is one more such function."""

from prototxt_gen.blocks.attention_module import ATTENTION_WORDS, NEXT_WORDS, AttentionModule
from prototxt_gen.blocks.basic_blocks import Kit, Style
from prototxt_gen.blocks.residual_units import Unit, post_activation, pre_activation

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
