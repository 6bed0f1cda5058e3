"""Inputs made explicit: a net that starts with one Input layer for every blob that comes from outside."""

from __future__ import annotations

from dataclasses import replace

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, analyse
from prototxt_gen.ir import Layer, Net, Value
from prototxt_gen.schema import LayerParameter


def with_input_layers(analysis: Analysis) -> Analysis:
    """Return the net with its inputs, and the layers that make data, replaced by Input layers of the known shapes."""
    net = analysis.net
    made = [_input(value, analysis) for value in net.inputs]
    body = []
    for layer in net.layers:
        room = layers.find(layer.type)
        if room is not None and room.data:
            made += [_input(top, analysis) for top in layer.tops]
        else:
            body.append(layer)
    bare = Net(net.name, (), (), net.params, net.source)
    return analyse(bare.relinked([*made, *body]))


def _input(value: Value, analysis: Analysis) -> Layer:
    shape = {"dim": analysis.shapes[value]}
    params = LayerParameter(input_param={"shape": shape})
    return Layer(f"input/{value.blob}", "Input", (), (replace(value, version=0),), params)
