"""Replacement of net inputs and data layers by Input layers of fixed shapes."""

from __future__ import annotations

from dataclasses import replace

from prototxt_gen.analysis import Analysis, analyse
from prototxt_gen.ir import Layer, Net, Value
from prototxt_gen.net.lowering_checks import is_input_layer, net_inputs
from prototxt_gen.schema.caffe_proto import LayerParameter


def with_input_layers(analysis: Analysis) -> Analysis:
    """Return a net of one phase with an Input layer for each input and for each top of a data layer that is read."""
    net = analysis.net
    input_layers = [_input_layer(value, analysis) for value in net_inputs(net)]
    body = [_without_rules(layer) for layer in net.layers if not is_input_layer(layer)]
    empty = Net(net.name, (), (), net.params.replace(state=None), net.source)
    return analyse(empty.relinked([*input_layers, *body]))


def _input_layer(value: Value, analysis: Analysis) -> Layer:
    shape = {"dim": analysis.shapes[value]}
    params = LayerParameter(input_param={"shape": shape})
    return Layer(f"input/{value.blob}", "Input", (), (replace(value, version=0),), params)


def _without_rules(layer: Layer) -> Layer:
    """Return the layer without include and exclude rules, as the phase is already selected."""
    return replace(layer, params=layer.params.replace(include=None, exclude=None))
