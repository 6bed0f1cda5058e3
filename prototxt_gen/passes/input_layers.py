"""Inputs made explicit: a net that starts with one Input layer for every blob that comes from outside."""

from __future__ import annotations

from dataclasses import replace

from prototxt_gen.analysis import Analysis, analyse
from prototxt_gen.ir import Layer, Net, Value
from prototxt_gen.net.lowering_checks import is_fed, sources
from prototxt_gen.schema.caffe_proto import LayerParameter


def with_input_layers(analysis: Analysis) -> Analysis:
    """Return a net of one phase with its inputs, and what data layers feed it, as Input layers of the known shapes."""
    net = analysis.net
    made = [_input(value, analysis) for value in sources(net)]
    body = [_of_any_phase(layer) for layer in net.layers if not is_fed(layer)]
    bare = Net(net.name, (), (), net.params.replace(state=None), net.source)
    return analyse(bare.relinked([*made, *body]))


def _input(value: Value, analysis: Analysis) -> Layer:
    shape = {"dim": analysis.shapes[value]}
    params = LayerParameter(input_param={"shape": shape})
    return Layer(f"input/{value.blob}", "Input", (), (replace(value, version=0),), params)


def _of_any_phase(layer: Layer) -> Layer:
    """Return the layer without its rules: the phase is chosen already."""
    return replace(layer, params=layer.params.replace(include=None, exclude=None))
