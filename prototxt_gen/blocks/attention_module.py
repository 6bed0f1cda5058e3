"""The attention module: a trunk of residual units, and a mask branch that gives a weight to every trunk value.

Source: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017, and the authors' deploy files.
"""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_gen.blocks.basic_blocks import BlockBuilder
from prototxt_gen.blocks.residual_units import ResidualUnit
from prototxt_gen.common.errors import NetError, one_of
from prototxt_gen.ir import Value

FUSIONS = ("residual", "naive")
MASK_ACTIVATIONS = ("mixed", "channel", "spatial")
MASKS = ("encoder-decoder", "local-convolution")


@dataclass(frozen=True)
class NameParts:
    """Parts of layer names in which the authors' two families of nets differ."""

    down: str
    up: str
    product: str


ATTENTION_NAMES = NameParts("down_sample", "up_sample", "_residual")
ATTENTION_NEXT_NAMES = NameParts("down", "up", "/attention_residual")


@dataclass(frozen=True)
class AttentionModule:
    """The options of an attention module; calling it (`module(blocks, name, x)`) adds its layers and returns the top.

    The top has the shape of `x`. `unit` adds a residual unit. There are `p` units before the branches and after their
    fusion, `t` in the trunk and `r` between two poolings of the mask, as in the paper. `depth` is the number of these
    poolings. `pre_activated` means that the outputs of units need BN and ReLU before a convolution. `join` is one of
    FUSIONS, `mask_activation` of MASK_ACTIVATIONS, `mask` of MASKS. Raises NetError for other values.
    """

    unit: ResidualUnit
    depth: int
    name_parts: NameParts
    pre_activated: bool = True
    p: int = 1
    t: int = 2
    r: int = 1
    join: str = "residual"
    mask_activation: str = "mixed"
    mask: str = "encoder-decoder"

    def __post_init__(self) -> None:
        one_of("attention", self.join, FUSIONS)
        one_of("mask_activation", self.mask_activation, MASK_ACTIVATIONS)
        one_of("mask", self.mask, MASKS)
        if min(self.p, self.r, self.depth) < 1 or self.t < 0:
            values = f"p={self.p}, r={self.r}, depth={self.depth}, t={self.t}"
            raise NetError(f"p, r and depth must be at least 1 and t at least 0, not {values}")

    def __call__(self, blocks: BlockBuilder, name: str, x: Value) -> Value:
        trunk = [x]
        for i in range(1, self.p + self.t + 1):
            trunk.append(self.unit(blocks, f"{name}/trunk/res{i}", trunk[-1], x.channels, 1))
        branch = self._encoder_decoder if self.mask == "encoder-decoder" else self._local_convolution
        mask = self._activate_mask(blocks, name, branch(blocks, name, trunk[self.p], trunk[-1]))
        y = self._fuse(blocks, name, trunk[-1], mask)
        for i in range(1, self.p):
            y = self.unit(blocks, f"{name}/post/res{i}", y, x.channels, 1)
        return self.unit(blocks, name, y, x.channels, 1)

    def _residual_units(self, blocks: BlockBuilder, stem: str, x: Value, first: int = 1) -> Value:
        """Add `r` residual units, with names from `stem`_`first` on, and return the last output."""
        for i in range(first, first + self.r):
            x = self.unit(blocks, f"{stem}_{i}", x, x.channels, 1)
        return x

    def _encoder_decoder(self, blocks: BlockBuilder, name: str, x: Value, like: Value) -> Value:
        """Add the paper's mask branch: poolings and units, then upsampling, with skip connections in between."""
        down, up = f"{name}/mask/{self.name_parts.down}", f"{name}/mask/{self.name_parts.up}"
        levels = [x]
        for i in range(1, self.depth + 1):
            levels.append(
                self._residual_units(blocks, f"{down}/res{i}", blocks.max_pool(f"{down}/pool{i}_3x3_s2", levels[-1]))
            )
        y = self._residual_units(blocks, f"{down}/res{self.depth}", levels[-1], first=self.r + 1)
        for i in range(self.depth, 1, -1):
            y = blocks.upsample(f"{up}/interp_{i}", y, levels[i - 1])
            skip = self.unit(blocks, f"{name}/mask/skip/res{i - 1}", levels[i - 1], x.channels, 1)
            y = self._residual_units(blocks, f"{up}/res{i - 1}", blocks.add(f"{up}{i - 1}", skip, y))
        return blocks.upsample(f"{up}/interp_1", y, like)

    def _local_convolution(self, blocks: BlockBuilder, name: str, x: Value, like: Value) -> Value:
        """Add the mask branch of the paper's ablation: as many units, without poolings and skip connections."""
        for i in range(1, 2 * self.depth + 1):
            x = self._residual_units(blocks, f"{name}/mask/local/res{i}", x)
        return x

    def _activate_mask(self, blocks: BlockBuilder, name: str, x: Value) -> Value:
        """Add two 1×1 convolutions and the activation that computes the mask; return the mask."""
        first = blocks.conv(f"{name}/mask/linear_1", blocks.activate(x) if self.pre_activated else x, x.channels)
        y = blocks.conv(f"{name}/mask/linear_2", blocks.activate(first), x.channels)
        if self.mask_activation == "channel":
            return _normalise_channels(blocks, f"{name}/mask", y)
        if self.mask_activation == "spatial":
            y = blocks.builder.add("MVN", f"{name}/mask/standardised", y)
        return blocks.builder.add("Sigmoid", f"{name}/mask", y)

    def _fuse(self, blocks: BlockBuilder, name: str, trunk: Value, mask: Value) -> Value:
        """Add the fusion (1 + mask)·trunk, or mask·trunk if naive, and return it."""
        if self.join == "naive":
            return blocks.multiply(f"{name}/fusion", trunk, mask)
        return blocks.add(f"{name}/fusion", blocks.multiply(f"{name}{self.name_parts.product}", trunk, mask), trunk)


def _normalise_channels(blocks: BlockBuilder, name: str, x: Value) -> Value:
    """Add a division of each pixel by the L2 norm over its channels, as an LRN whose window covers all channels."""
    window = 2 * x.channels - 1
    return blocks.builder.add("LRN", name, x, local_size=window, alpha=window, beta=0.5, k=1e-12)
