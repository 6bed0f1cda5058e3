"""Layers that Caffe trains nothing below, without a word: their backward pass is empty.

A learned layer below one of them keeps its fillers' numbers, or learns from what is left in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from prototxt_gen import layers
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Net, Shape, Value
from prototxt_gen.net.backward_pass import backward, learns
from prototxt_gen.net.render import net_text
from prototxt_gen.schema.caffe_proto import NetParameter

SUSPECTS = frozenset({
    "BilinearInterpolate", "HardSigmoid", "HardSwish", "MaxUnPool", "Pad", "PixelShuffle", "Unsqueeze", "Upsample",
})  # fmt: skip
"""Types of the Caffe that `caffe install` builds whose Backward_cpu does nothing; another Caffe's may do its work."""


def suspects(net: Net, blobs: Mapping[str, Sequence[Shape]]) -> Iterator[Layer]:
    """Yield the layers of such types that gradients would go through. `blobs` are the learned ones of each layer."""
    for layer, places in backward(net, lambda layer: learns(layer, len(blobs.get(layer.name, ())))):
        if places and layer.type in SUSPECTS:
            yield layer


def alone(layer: Layer, bottoms: Sequence[Shape]) -> str:
    """Return a net of this layer only, as prototxt, that asks for the gradients of all bottoms: `bottom0`, …"""
    inputs = tuple(Value(f"bottom{place}", 0, tuple(shape)) for place, shape in enumerate(bottoms))
    tops = tuple(Value(f"top{place}") for place in range(len(layer.tops)))
    bare = layer.params.replace(include=None, exclude=None, propagate_down=None, loss_weight=None)
    made = replace(layer, bottoms=inputs, tops=tops, params=bare)
    return net_text(Net("alone", inputs, (made,), NetParameter(force_backward=True)))


def refusal(layer: Layer) -> UnsupportedError:
    """Return the error for a layer whose backward pass was found to do nothing."""
    other = "" if layers.find_layer_type(layer.type) is None else "; --backend torch trains it"
    return UnsupportedError(
        f"layer {layer.name!r} ({layer.type}): this Caffe has no backward pass of the type, so what is learned below "
        f"it would get no gradient{other}"
    )
