"""Residual Attention Networks, ImageNet and CIFAR, and every variant of them that the paper talks about."""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_gen.blocks import (
    ATTENTION_WORDS,
    NEXT_WORDS,
    AttentionModule,
    Kit,
    Style,
    Unit,
    post_activation,
    pre_activation,
)
from prototxt_gen.common.errors import NetError, one_of
from prototxt_gen.ir import Net, Value
from prototxt_gen.net.builder import Builder

UNITS = ("pre-activation", "resnext", "resnet")
STEMS = ("imagenet", "cifar")


@dataclass(frozen=True)
class ResidualNet:
    """A net of residual stages, with attention modules after the first unit of each stage but the last, or without.

    `modules` counts the attention modules of stages A, B, C; `units` the further plain units of each stage, the last
    entry those of the last stage. `ptr` are the paper's p, t, r; `depths`, how often each stage's masks halve the map.
    `width` is the channel count of the stem; the stages have `expansion`·width·(1, 2, 4, 8). `input_size` is height
    and width of the test image; the head's pooling follows it.
    """

    name: str
    unit: str = "pre-activation"
    modules: tuple[int, ...] = (1, 1, 1)
    units: tuple[int, ...] = (0, 0, 0, 2)
    ptr: tuple[int, int, int] = (1, 2, 1)
    depths: tuple[int, ...] = (3, 2, 1)
    width: int = 64
    expansion: int = 4
    cardinality: int = 32
    stem: str = "imagenet"
    classes: int = 1000
    input_size: int = 224
    channels: int = 3
    attention: str = "residual"
    mask_activation: str = "mixed"
    mask: str = "encoder-decoder"
    bn: str = "merged"
    upsampling: str = "interp"
    note: str = ""
    """A sentence for the model card."""

    def __post_init__(self) -> None:
        one_of("unit", self.unit, UNITS)
        one_of("stem", self.stem, STEMS)
        if min(self.width, self.classes, self.input_size, self.channels, self.expansion, self.cardinality) < 1:
            raise NetError("width, expansion, cardinality, classes, input size and channels must be at least 1")
        if not len(self.modules) <= len(self.units) or min((0, *self.modules, *self.units)) < 0:
            raise NetError(f"there are {len(self.units)} stages; modules {self.modules} must fit them, none negative")
        if len(self.depths) < len(self.modules):
            raise NetError(f"depths {self.depths} must give a depth for each stage of modules {self.modules}")

    def build(self) -> Net:
        """Return the deploy net."""
        kit = Kit(Builder(self.name), Style(self.bn, self.upsampling, conv_param=self.unit == "resnext"))
        x = self._stem(kit, kit.builder.input("data", (1, self.channels, self.input_size, self.input_size)))
        for index in range(len(self.units)):
            x = self._stage(kit, x, index)
        self._head(kit, x)
        return kit.builder.build()

    @property
    def _pre_activated(self) -> bool:
        return self.unit == "pre-activation"

    def _unit(self) -> Unit:
        if self.unit == "resnext":
            return post_activation(width=1 / 2, group=self.cardinality)
        return pre_activation if self._pre_activated else post_activation(width=1 / 4, group=1)

    def _stem(self, kit: Kit, x: Value) -> Value:
        if self.stem == "cifar":
            y = kit.conv("conv1", x, self.width, kernel=3, pad=1)
            return y if self._pre_activated else kit.activate(y)
        y = kit.conv("conv1", x, self.width, kernel=7, stride=2, pad=3)
        return kit.max_pool("pool1_3x3_s2", kit.activate(y))

    def _stage(self, kit: Kit, x: Value, index: int) -> Value:
        """`pre_res_i` and attention modules, or, in the last stage of these nets, `post_res_i_1`, `_2`, …."""
        outputs = self.expansion * self.width * 2**index
        modules = self.modules[index] if index < len(self.modules) else 0
        unit, stride = self._unit(), 1 if index == 0 else 2
        first = f"pre_res_{index + 1}" if index < len(self.modules) else f"post_res_{index + 1}_1"
        x = unit(kit, first, x, outputs, stride)
        for i in range(1, modules + 1):
            x = self._module(index)(kit, f"Attention{chr(ord('A') + index)}_{i}", x)
        for i in range(2, self.units[index] + 2):
            x = unit(kit, f"{first.removesuffix('_1')}_{i}", x, outputs, 1)
        return x

    def _module(self, index: int) -> AttentionModule:
        p, t, r = self.ptr
        return AttentionModule(
            self._unit(),
            self.depths[index],
            NEXT_WORDS if self.unit == "resnext" else ATTENTION_WORDS,
            self._pre_activated,
            *(p, t, r),
            join=self.attention,
            mask_activation=self.mask_activation,
            mask=self.mask,
        )

    def _head(self, kit: Kit, x: Value) -> None:
        if self._pre_activated:
            x = kit.activate(x)
        height, width = x.known_shape[2:]
        if height != width:
            raise NetError(f"the last map is {height}x{width}; the head pools a square")
        y = kit.builder.add("Pooling", "ave_pool", x, pool="AVE", kernel_size=height, stride=1)
        y = kit.builder.add("InnerProduct", "classifier", y, num_output=self.classes)
        kit.builder.add("Softmax", "cls", y)
