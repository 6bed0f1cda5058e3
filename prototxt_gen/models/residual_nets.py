"""ResidualNet: builds Residual Attention Networks (ImageNet, CIFAR, all variants in the paper), ResNet and ResNeXt."""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_gen.blocks import (
    ATTENTION_NAMES,
    ATTENTION_NEXT_NAMES,
    AttentionModule,
    BlockBuilder,
    BlockStyle,
    ResidualUnit,
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
    """Options of a residual net, with or without attention modules after the first unit of its stages.

    `unit` is one of UNITS and `stem` (the layers before the first stage) one of STEMS. `modules` gives the number of
    attention modules of stages A, B, C, and `units` the number of residual units behind the first unit of every stage.
    `ptr` are the paper's p, t, r. `depths` is the number of poolings in the masks of each stage. `width` is the number
    of channels of the stem; the stages have `expansion`·width·(1, 2, 4, 8). `input_size` is the height and width of the
    image. `attention`, `mask_activation` and `mask` are options of AttentionModule, `bn` and `upsampling` are those of
    BlockStyle. Raises NetError for values that do not fit together.
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
        if len(self.modules) > len(self.units):
            raise NetError(f"modules {self.modules} has more entries than the net has stages, {len(self.units)}")
        if min((0, *self.modules, *self.units)) < 0:
            raise NetError(f"modules {self.modules} and units {self.units} must not be negative")
        if len(self.depths) < len(self.modules):
            raise NetError(f"depths {self.depths} must have at least as many entries as modules {self.modules}")

    def build(self) -> Net:
        """Return the deploy net."""
        blocks = BlockBuilder(
            Builder(self.name), BlockStyle(self.bn, self.upsampling, conv_param=self.unit == "resnext")
        )
        x = self._stem(blocks, blocks.builder.input("data", (1, self.channels, self.input_size, self.input_size)))
        for index in range(len(self.units)):
            x = self._stage(blocks, x, index)
        self._head(blocks, x)
        return blocks.builder.build()

    @property
    def _pre_activated(self) -> bool:
        return self.unit == "pre-activation"

    def _unit(self) -> ResidualUnit:
        if self.unit == "resnext":
            return post_activation(width=1 / 2, group=self.cardinality)
        return pre_activation if self._pre_activated else post_activation(width=1 / 4, group=1)

    def _stem(self, blocks: BlockBuilder, x: Value) -> Value:
        if self.stem == "cifar":
            y = blocks.conv("conv1", x, self.width, kernel=3, pad=1)
            return y if self._pre_activated else blocks.activate(y)
        y = blocks.conv("conv1", x, self.width, kernel=7, stride=2, pad=3)
        return blocks.max_pool("pool1_3x3_s2", blocks.activate(y))

    def _stage(self, blocks: BlockBuilder, x: Value, index: int) -> Value:
        """Add one stage: `pre_res_i` and attention modules, or `post_res_i_1`, `_2`, … in stages without modules."""
        outputs = self.expansion * self.width * 2**index
        modules = self.modules[index] if index < len(self.modules) else 0
        unit, stride = self._unit(), 1 if index == 0 else 2
        first = f"pre_res_{index + 1}" if index < len(self.modules) else f"post_res_{index + 1}_1"
        x = unit(blocks, first, x, outputs, stride)
        for i in range(1, modules + 1):
            x = self._attention_module(index)(blocks, f"Attention{chr(ord('A') + index)}_{i}", x)
        for i in range(2, self.units[index] + 2):
            x = unit(blocks, f"{first.removesuffix('_1')}_{i}", x, outputs, 1)
        return x

    def _attention_module(self, index: int) -> AttentionModule:
        p, t, r = self.ptr
        return AttentionModule(
            self._unit(),
            self.depths[index],
            ATTENTION_NEXT_NAMES if self.unit == "resnext" else ATTENTION_NAMES,
            self._pre_activated,
            *(p, t, r),
            join=self.attention,
            mask_activation=self.mask_activation,
            mask=self.mask,
        )

    def _head(self, blocks: BlockBuilder, x: Value) -> None:
        if self._pre_activated:
            x = blocks.activate(x)
        height, width = x.known_shape[2:]
        if height != width:
            raise NetError(f"the last feature map is {height}x{width}, but the average pooling needs a square")
        y = blocks.builder.add("Pooling", "ave_pool", x, pool="AVE", kernel_size=height, stride=1)
        y = blocks.builder.add("InnerProduct", "classifier", y, num_output=self.classes)
        blocks.builder.add("Softmax", "cls", y)
