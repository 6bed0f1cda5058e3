"""Building blocks: functions that add several layers to a net. A user's own block is one more such function."""

from prototxt_gen.blocks.attention_module import ATTENTION_NAMES, ATTENTION_NEXT_NAMES, AttentionModule
from prototxt_gen.blocks.basic_blocks import BlockBuilder, BlockStyle
from prototxt_gen.blocks.residual_units import ResidualUnit, post_activation, pre_activation

__all__ = [
    "ATTENTION_NAMES",
    "ATTENTION_NEXT_NAMES",
    "AttentionModule",
    "BlockBuilder",
    "BlockStyle",
    "ResidualUnit",
    "post_activation",
    "pre_activation",
]
