"""Residual units of ResNet, ResNeXt and the Residual Attention Networks.

A unit is a function that adds the layers of one unit; its last layer, the sum, has the name of the unit.
"""

from __future__ import annotations

from collections.abc import Callable

from prototxt_gen.blocks.basic_blocks import BlockBuilder
from prototxt_gen.ir import Value

ResidualUnit = Callable[[BlockBuilder, str, Value, int, int], Value]
"""Function (blocks, name, x, outputs, stride) that returns the sum, N×outputs×H/stride×W/stride."""


def pre_activation(blocks: BlockBuilder, name: str, x: Value, outputs: int, stride: int = 1) -> Value:
    """Add a pre-activation bottleneck unit of width outputs/4 and return its sum, which has no BN or ReLU behind it.

    An identity shortcut reads `x` itself; a projection reads BN and ReLU of `x`. Bottoms of the sum are `[branch1, x]`
    with an identity, `[branch2, branch1]` with a projection.
    """
    active = blocks.activate(x)
    y = blocks.conv(f"{name}/branch1/conv1_1x1", active, outputs // 4)
    y = blocks.conv(f"{name}/branch1/conv2_3x3", blocks.activate(y), outputs // 4, kernel=3, stride=stride, pad=1)
    y = blocks.conv(f"{name}/branch1/conv3_1x1", blocks.activate(y), outputs)
    if stride == 1 and x.channels == outputs:
        return blocks.add(name, y, x)
    return blocks.add(name, blocks.conv(f"{name}/branch2/conv1_1x1", active, outputs, stride=stride), y)


def post_activation(width: float, group: int) -> ResidualUnit:
    """Return the bottleneck unit of ResNet or ResNeXt: BN after every convolution, ReLU after the sum.

    `width` is the share of the outputs in the bottleneck (1/4 in ResNet, 1/2 in ResNeXt), `group` the cardinality.
    """

    def unit(blocks: BlockBuilder, name: str, x: Value, outputs: int, stride: int = 1) -> Value:
        inner = int(outputs * width)
        y = blocks.activate(blocks.conv(f"{name}/branch1/conv1_1x1", x, inner))
        y = blocks.conv(f"{name}/branch1/conv2_3x3", y, inner, kernel=3, stride=stride, pad=1, group=group)
        y = blocks.bn(blocks.conv(f"{name}/branch1/conv3_1x1", blocks.activate(y), outputs))
        if stride == 1 and x.channels == outputs:
            return blocks.relu(blocks.add(name, y, x))
        shortcut = blocks.bn(blocks.conv(f"{name}/branch2/conv1_1x1", x, outputs, stride=stride))
        return blocks.relu(blocks.add(name, shortcut, y))

    return unit
