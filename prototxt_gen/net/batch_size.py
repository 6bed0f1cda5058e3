"""Another batch size for the data layers of a net."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Layer, Net
from prototxt_gen.layers.utility.python import PythonParameter


def with_batch_size(net: Net, size: int) -> Net:
    """Return the net with this batch size in every data layer that has one, also in the JSON of a Python layer.

    Raises NetError if no layer has one.
    """
    params = [_params_with_batch_size(layer, size) for layer in net.layers]
    if not any(params):
        raise NetError(f"{net.source or net.name}: no data layer has a batch size that --batch {size} could replace")
    changed = (
        replace(layer, params=layer.params.replace(**fields)) if fields else layer
        for layer, fields in zip(net.layers, params, strict=True)
    )
    return replace(net, layers=tuple(changed))


def _params_with_batch_size(layer: Layer, size: int) -> dict[str, Any]:
    """Return the changed parameter messages of a data layer by field name; {} if it has no batch size."""
    layer_type = layers.find_layer_type(layer.type)
    if layer.type == "Python" and not layer.bottoms:
        return _python_param_with_batch_size(layer.get(PythonParameter), size)
    kinds = layer_type.params if layer_type is not None and layer_type.data else ()
    return {
        kind.field: layer.get(kind).replace(batch_size=size)
        for kind in kinds
        if "batch_size" in kind.fields and layer.params.has(kind.field)
    }


def _python_param_with_batch_size(params: PythonParameter, size: int) -> dict[str, Any]:
    try:
        fields = json.loads(params.param_str)
    except ValueError:
        return {}
    if not isinstance(fields, dict) or "batch_size" not in fields:
        return {}
    return {"python_param": params.replace(param_str=json.dumps(fields | {"batch_size": size}))}
