"""Residual units: the bricks of ResNet, ResNeXt and the Residual Attention Networks.

A unit is a function of a Kit, a name, a Value and the output channels; its sum carries the unit's name.
"""

from __future__ import annotations

from collections.abc import Callable

from prototxt_gen.blocks.basic_blocks import Kit
from prototxt_gen.ir import Value

Unit = Callable[[Kit, str, Value, int, int], Value]
"""(kit, name, x, outputs, stride) → the sum, N×outputs×H/stride×W/stride."""


def pre_activation(kit: Kit, name: str, x: Value, outputs: int, stride: int = 1) -> Value:
    """The pre-activation bottleneck of width outputs/4: the sum has no BN or ReLU of its own.

    An identity shortcut takes the raw input; a projection takes the activated one. Bottoms of the sum: identity
    `[branch1, x]`, projection `[branch2, branch1]`.
    """
    active = kit.activate(x)
    y = kit.conv(f"{name}/branch1/conv1_1x1", active, outputs // 4)
    y = kit.conv(f"{name}/branch1/conv2_3x3", kit.activate(y), outputs // 4, kernel=3, stride=stride, pad=1)
    y = kit.conv(f"{name}/branch1/conv3_1x1", kit.activate(y), outputs)
    if stride == 1 and x.channels == outputs:
        return kit.add(name, y, x)
    return kit.add(name, kit.conv(f"{name}/branch2/conv1_1x1", active, outputs, stride=stride), y)


def post_activation(width: float, group: int) -> Unit:
    """Return a bottleneck of ResNet or ResNeXt: BN after every convolution, ReLU after the sum.

    `width` is the bottleneck's part of the outputs, 1/4 in ResNet, 1/2 in ResNeXt; `group` its cardinality.
    """

    def unit(kit: Kit, name: str, x: Value, outputs: int, stride: int = 1) -> Value:
        inner = int(outputs * width)
        y = kit.activate(kit.conv(f"{name}/branch1/conv1_1x1", x, inner))
        y = kit.conv(f"{name}/branch1/conv2_3x3", y, inner, kernel=3, stride=stride, pad=1, group=group)
        y = kit.bn(kit.conv(f"{name}/branch1/conv3_1x1", kit.activate(y), outputs))
        if stride == 1 and x.channels == outputs:
            return kit.relu(kit.add(name, y, x))
        shortcut = kit.bn(kit.conv(f"{name}/branch2/conv1_1x1", x, outputs, stride=stride))
        return kit.relu(kit.add(name, shortcut, y))

    return unit
