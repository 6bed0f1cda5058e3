"""Evaluation of common layer types in NumPy, in double precision: the reference where neither Caffe nor PyTorch is.

It is written from Caffe's layers, and shares nothing with the lowering to ONNX that it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from converters.common.net_with_weights import NetWithWeights
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer
from prototxt_gen.net.lowering_checks import is_input_layer
from prototxt_gen.schema.message import Message

Array = np.ndarray[Any, Any]
Roles = Mapping[str, Array]
Evaluate = Callable[[Mapping[str, Any], Sequence[Array], Roles], Array]
_FIELDS: dict[str, set[str]] = {
    "Convolution": {"num_output", "bias_term", "pad", "kernel_size", "stride", "dilation", "group"},
    "InnerProduct": {"num_output", "bias_term"},
    "Pooling": {"pool", "pad", "kernel_size", "stride", "global_pooling"},
    "BatchNorm": {"use_global_stats", "moving_average_fraction", "eps"},
    "Scale": {"bias_term"},
    "ReLU": {"negative_slope"},
    "Power": {"power", "scale", "shift"},
    "Dropout": {"dropout_ratio"},
    "Softmax": set(),
    "Concat": set(),
    "Flatten": set(),
    "Sigmoid": set(),
    "TanH": set(),
    "AbsVal": set(),
}
"""The types, with those of their parameters that are understood here; fillers and engines do not matter."""
_WITHOUT_MEANING = {"weight_filler", "bias_filler", "filler", "engine"}


def uncovered_layers(model: NetWithWeights) -> list[Layer]:
    """Return the layers that cannot be evaluated here."""
    return [layer for layer in model.net.layers if not is_input_layer(layer) and not _is_covered(model, layer)]


def run_numpy(model: NetWithWeights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return every blob by name. Raises UnsupportedError, which names the layers, if some cannot be evaluated."""
    if uncovered := uncovered_layers(model):
        names = ", ".join(f"{layer.name!r} ({layer.type})" for layer in uncovered)
        raise UnsupportedError(f"layers {names} have no evaluation in NumPy")
    blobs = {name: np.asarray(array, np.float64) for name, array in inputs.items()}
    for layer in model.net.layers:
        if not is_input_layer(layer):
            roles = {role: np.asarray(a, np.float64) for role, a in model.weights.of(layer.name).items()}
            bottoms = [blobs[value.blob] for value in layer.bottoms]
            blobs[layer.tops[0].blob] = _EVALUATIONS[layer.type](_parameters(layer), bottoms, roles)
    return blobs


def _parameters(layer: Layer) -> dict[str, Any]:
    """Return the fields that the file sets in the layer's parameters."""
    messages = [value for name, value in layer.params.set_fields() if name.endswith("_param")]
    return {name: value for m in messages if isinstance(m, Message) for name, value in m.set_fields()}


def _is_covered(model: NetWithWeights, layer: Layer) -> bool:
    known = _FIELDS.get(layer.type)
    if known is None or len(layer.tops) != 1 or not layer.bottoms:
        return False
    has_planes = len(model.analysis.shapes[layer.bottoms[0]]) == 4
    is_normal = has_planes or layer.type not in ("Convolution", "Pooling")
    learned = set(model.weights.of(layer.name)) <= {"weight", "bias", "scale", "mean", "variance", "factor"}
    needs_statistics = layer.type == "BatchNorm" and _parameters(layer).get("use_global_stats") is False
    single = len(layer.bottoms) == 1 or layer.type == "Concat"
    understood = set(_parameters(layer)) <= known | _WITHOUT_MEANING
    return is_normal and learned and single and not needs_statistics and understood


def _pair(values: Any, default: int) -> tuple[int, int]:
    listed = list(values) if isinstance(values, (tuple, list)) else [values] if values else []
    return (listed[0], listed[-1]) if listed else (default, default)


def _convolution(p: Mapping[str, Any], bottoms: Sequence[Array], roles: Roles) -> Array:
    """Source: src/caffe/layers/base_conv_layer.cpp and conv_layer.cpp."""
    weight, (pad_h, pad_w) = roles["weight"], _pair(p.get("pad"), 0)
    stride, dilation, group = _pair(p.get("stride"), 1), _pair(p.get("dilation"), 1), p.get("group", 1)
    x = np.pad(bottoms[0], ((0, 0), (0, 0), (pad_h, pad_h), (pad_w, pad_w)))
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    height, width = [(n - e) // s + 1 for n, e, s in zip(x.shape[2:], extents, stride, strict=True)]
    parts = []
    for images, kernels in zip(np.split(x, group, 1), np.split(weight, group, 0), strict=True):
        total = np.zeros((len(x), len(kernels), height, width))
        for row, column in np.ndindex(*weight.shape[2:]):
            top, left = row * dilation[0], column * dilation[1]
            seen = images[:, :, top : top + height * stride[0] : stride[0], left : left + width * stride[1] : stride[1]]
            total += np.einsum("nchw,oc->nohw", seen[:, :, :height, :width], kernels[:, :, row, column])
        parts.append(total)
    bias = roles["bias"].reshape(1, -1, 1, 1) if "bias" in roles else 0.0
    return np.asarray(np.concatenate(parts, 1) + bias)


def _pooling(p: Mapping[str, Any], bottoms: Sequence[Array], roles: Roles) -> Array:
    """Source: src/caffe/layers/pooling_layer.cpp. Padding counts in the size of an average, but not beyond it."""
    x, is_max = bottoms[0], p.get("pool", "MAX") == "MAX"
    if p.get("pool", "MAX") not in ("MAX", "AVE"):
        raise UnsupportedError(f"pool {p['pool']} has no evaluation in NumPy")
    if p.get("global_pooling"):
        return np.asarray(x.max((2, 3), keepdims=True) if is_max else x.mean((2, 3), keepdims=True))
    kernel, stride, pad = p["kernel_size"], p.get("stride", 1), p.get("pad", 0)
    sizes = [math.ceil((n + 2 * pad - kernel) / stride) + 1 for n in x.shape[2:]]
    sizes = [s - 1 if pad and (s - 1) * stride >= n + pad else s for s, n in zip(sizes, x.shape[2:], strict=True)]
    result = np.zeros((*x.shape[:2], *sizes))
    for index in np.ndindex(*sizes):
        starts = [i * stride - pad for i in index]
        ends = [min(start + kernel, n + pad) for start, n in zip(starts, x.shape[2:], strict=True)]
        area = (ends[0] - starts[0]) * (ends[1] - starts[1])
        window = x[:, :, max(starts[0], 0) : ends[0], max(starts[1], 0) : ends[1]]
        result[:, :, index[0], index[1]] = window.max((2, 3)) if is_max else window.sum((2, 3)) / area
    return result


def _inner_product(p: Mapping[str, Any], bottoms: Sequence[Array], roles: Roles) -> Array:
    """Source: src/caffe/layers/inner_product_layer.cpp."""
    x = bottoms[0].reshape(len(bottoms[0]), -1)
    bias = roles["bias"].ravel() if "bias" in roles else 0.0
    return np.asarray(x @ roles["weight"].reshape(-1, x.shape[1]).T + bias)


def _batch_norm(p: Mapping[str, Any], bottoms: Sequence[Array], roles: Roles) -> Array:
    """Source: src/caffe/layers/batch_norm_layer.cpp, with the stored statistics."""
    factor = float(roles["factor"].ravel()[0]) if "factor" in roles else 1.0
    scale = 1 / factor if factor else 0.0
    mean, variance = (_by_channel(scale * roles[role], bottoms[0]) for role in ("mean", "variance"))
    return np.asarray((bottoms[0] - mean) / np.sqrt(variance + float(np.float32(p.get("eps", 1e-5)))))


def _by_channel(array: Array, like: Array) -> Array:
    return array.reshape(1, -1, *[1] * (like.ndim - 2))


def _scale(p: Mapping[str, Any], bottoms: Sequence[Array], roles: Roles) -> Array:
    """Source: src/caffe/layers/scale_layer.cpp."""
    bias = _by_channel(roles["bias"], bottoms[0]) if "bias" in roles else 0.0
    return np.asarray(bottoms[0] * _by_channel(roles["scale"], bottoms[0]) + bias)


def _softmax(p: Mapping[str, Any], bottoms: Sequence[Array], roles: Roles) -> Array:
    powers = np.exp(bottoms[0] - bottoms[0].max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


_EVALUATIONS: dict[str, Evaluate] = {
    "Convolution": _convolution,
    "Pooling": _pooling,
    "InnerProduct": _inner_product,
    "BatchNorm": _batch_norm,
    "Scale": _scale,
    "Softmax": _softmax,
    "ReLU": lambda p, b, roles: np.where(b[0] > 0, b[0], b[0] * p.get("negative_slope", 0.0)),
    "Power": lambda p, b, roles: (p.get("shift", 0.0) + p.get("scale", 1.0) * b[0]) ** p.get("power", 1.0),
    "Dropout": lambda p, b, roles: b[0],
    "Concat": lambda p, b, roles: np.concatenate(b, 1),
    "Flatten": lambda p, b, roles: b[0].reshape(len(b[0]), -1),
    "Sigmoid": lambda p, b, roles: 1 / (1 + np.exp(-b[0])),
    "TanH": lambda p, b, roles: np.tanh(b[0]),
    "AbsVal": lambda p, b, roles: np.abs(b[0]),
}
