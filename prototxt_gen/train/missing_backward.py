"""Layer types whose backward pass is empty in Caffe, so that layers below them would silently not be trained.

A learned layer below one of them keeps its initial values, or learns from whatever is left in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from prototxt_gen import layers
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Net, Shape, Value
from prototxt_gen.net.backward_pass import has_learned_blob, layers_with_gradient
from prototxt_gen.net.render import net_text
from prototxt_gen.schema.caffe_proto import NetParameter

TYPES_WITHOUT_BACKWARD = frozenset({
    "BilinearInterpolate", "HardSigmoid", "HardSwish", "MaxUnPool", "Pad", "PixelShuffle", "Unsqueeze", "Upsample",
})  # fmt: skip
"""Types whose Backward_cpu does nothing in the Caffe that `caffe install` builds. Another Caffe may implement it."""


def layers_to_check(net: Net, blobs: Mapping[str, Sequence[Shape]]) -> Iterator[Layer]:
    """Yield the layers of such types that a gradient must pass through.

    `blobs` are the shapes of the learned blobs by layer name.
    """
    for layer, positions in layers_with_gradient(
        net, lambda layer: has_learned_blob(layer, len(blobs.get(layer.name, ())))
    ):
        if positions and layer.type in TYPES_WITHOUT_BACKWARD:
            yield layer


def one_layer_net(layer: Layer, bottoms: Sequence[Shape]) -> str:
    """Return the prototxt of a net with only this layer, inputs `bottom0`, …, and gradients of all inputs."""
    inputs = tuple(Value(f"bottom{index}", 0, tuple(shape)) for index, shape in enumerate(bottoms))
    tops = tuple(Value(f"top{index}") for index in range(len(layer.tops)))
    params = layer.params.replace(include=None, exclude=None, propagate_down=None, loss_weight=None)
    single_layer = replace(layer, bottoms=inputs, tops=tops, params=params)
    return net_text(Net("one_layer", inputs, (single_layer,), NetParameter(force_backward=True)))


def missing_backward_error(layer: Layer) -> UnsupportedError:
    """Return the error for a layer whose backward pass turned out to do nothing."""
    alternative = "" if layers.find_layer_type(layer.type) is None else "; --backend torch trains it"
    return UnsupportedError(
        f"layer {layer.name!r} ({layer.type}): this Caffe has no backward pass of the type, so the layers below "
        f"it would get no gradient{alternative}"
    )
