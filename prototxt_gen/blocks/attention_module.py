"""The attention module: a trunk of residual units, and a mask branch that says where to look.

Source: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017, and the authors' deploy files.
"""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_gen.blocks.basic_blocks import Kit
from prototxt_gen.blocks.residual_units import Unit
from prototxt_gen.common.errors import NetError, one_of
from prototxt_gen.ir import Value

JOINS = ("residual", "naive")
MASK_ACTIVATIONS = ("mixed", "channel", "spatial")
MASKS = ("encoder-decoder", "local-convolution")


@dataclass(frozen=True)
class Words:
    """The names in which the authors' two families differ."""

    down: str
    up: str
    product: str


ATTENTION_WORDS = Words("down_sample", "up_sample", "_residual")
NEXT_WORDS = Words("down", "up", "/attention_residual")


@dataclass(frozen=True)
class AttentionModule:
    """An attention module with its choices; `module(kit, name, x)` builds it, keeping the shape of x.

    `p` units stand before the split and after the join, `t` in the trunk, `r` between two poolings of the mask; `depth`
    is how often the mask halves the map. `pre_activated` tells units whose sums want BN and ReLU before use.
    """

    unit: Unit
    depth: int
    words: Words
    pre_activated: bool = True
    p: int = 1
    t: int = 2
    r: int = 1
    join: str = "residual"
    mask_activation: str = "mixed"
    mask: str = "encoder-decoder"

    def __post_init__(self) -> None:
        one_of("attention", self.join, JOINS)
        one_of("mask_activation", self.mask_activation, MASK_ACTIVATIONS)
        one_of("mask", self.mask, MASKS)
        if min(self.p, self.r, self.depth) < 1 or self.t < 0:
            given = (self.p, self.r, self.depth, self.t)
            raise NetError(f"p, r and depth must be at least 1 and t at least 0, not {given}")

    def __call__(self, kit: Kit, name: str, x: Value) -> Value:
        trunk = [x]
        for i in range(1, self.p + self.t + 1):
            trunk.append(self.unit(kit, f"{name}/trunk/res{i}", trunk[-1], x.channels, 1))
        branch = self._encoder_decoder if self.mask == "encoder-decoder" else self._local
        mask = self._activate_mask(kit, name, branch(kit, name, trunk[self.p], trunk[-1]))
        y = self._join(kit, name, trunk[-1], mask)
        for i in range(1, self.p):
            y = self.unit(kit, f"{name}/post/res{i}", y, x.channels, 1)
        return self.unit(kit, name, y, x.channels, 1)

    def _units(self, kit: Kit, stem: str, x: Value, first: int = 1) -> Value:
        """r units named stem_first, stem_first+1, …"""
        for i in range(first, first + self.r):
            x = self.unit(kit, f"{stem}_{i}", x, x.channels, 1)
        return x

    def _encoder_decoder(self, kit: Kit, name: str, x: Value, like: Value) -> Value:
        """Bottom-up to see the whole map, then top-down, with a skip unit at every level between."""
        down, up = f"{name}/mask/{self.words.down}", f"{name}/mask/{self.words.up}"
        levels = [x]
        for i in range(1, self.depth + 1):
            levels.append(self._units(kit, f"{down}/res{i}", kit.max_pool(f"{down}/pool{i}_3x3_s2", levels[-1])))
        y = self._units(kit, f"{down}/res{self.depth}", levels[-1], first=self.r + 1)
        for i in range(self.depth, 1, -1):
            y = kit.upsample(f"{up}/interp_{i}", y, levels[i - 1])
            skip = self.unit(kit, f"{name}/mask/skip/res{i - 1}", levels[i - 1], x.channels, 1)
            y = self._units(kit, f"{up}/res{i - 1}", kit.add(f"{up}{i - 1}", skip, y))
        return kit.upsample(f"{up}/interp_1", y, like)

    def _local(self, kit: Kit, name: str, x: Value, like: Value) -> Value:
        """The paper's ablation: as many units, skips left out, all at the trunk's own resolution."""
        for i in range(1, 2 * self.depth + 1):
            x = self._units(kit, f"{name}/mask/local/res{i}", x)
        return x

    def _activate_mask(self, kit: Kit, name: str, x: Value) -> Value:
        """Two 1×1 convolutions, then the activation that makes the mask."""
        first = kit.conv(f"{name}/mask/linear_1", kit.activate(x) if self.pre_activated else x, x.channels)
        y = kit.conv(f"{name}/mask/linear_2", kit.activate(first), x.channels)
        if self.mask_activation == "channel":
            return _unit_length(kit, f"{name}/mask", y)
        if self.mask_activation == "spatial":
            y = kit.builder.add("MVN", f"{name}/mask/standardised", y)
        return kit.builder.add("Sigmoid", f"{name}/mask", y)

    def _join(self, kit: Kit, name: str, trunk: Value, mask: Value) -> Value:
        """(1 + mask)·trunk, or mask·trunk in the naive form."""
        if self.join == "naive":
            return kit.multiply(f"{name}/fusion", trunk, mask)
        return kit.add(f"{name}/fusion", kit.multiply(f"{name}{self.words.product}", trunk, mask), trunk)


def _unit_length(kit: Kit, name: str, x: Value) -> Value:
    """Divide every pixel by the length of its channels: an LRN wide enough to see them all does just that."""
    wide = 2 * x.channels - 1
    return kit.builder.add("LRN", name, x, local_size=wide, alpha=wide, beta=0.5, k=1e-12)
