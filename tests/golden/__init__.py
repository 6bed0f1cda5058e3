"""Golden tensors: what real Caffe computes for the examples of each layer type.

`python -m tests.golden` records them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen.ir import Layer, Value
from prototxt_gen.layers.base import LayerType
from prototxt_gen.layers.example import Example
from prototxt_gen.net.prototxt_reader import parse_net

FOLDER = Path(__file__).parent
Array = np.ndarray[Any, Any]


def path(layer_type: LayerType) -> Path:
    """Return the path of a type's golden file."""
    return FOLDER / f"{layer_type.type}.npz"


def prototxt(layer_type: LayerType, example: Example) -> str:
    """Return the net that holds just this example."""
    lines = ['name: "example"', "force_backward: true"]
    for index, shape in enumerate(example.bottoms):
        dims = " ".join(f"dim: {dim}" for dim in shape)
        lines.append(f'input: "bottom{index}" input_shape {{ {dims} }}')
    bottoms = " ".join(f'bottom: "bottom{i}"' for i in range(len(example.bottoms)))
    tops = " ".join(f'top: "{top}"' for top in top_names(example))
    lines.append(f'layer {{ name: "it" type: "{layer_type.type}" {bottoms} {tops} {example.params} }}')
    return "\n".join(lines)


def top_names(example: Example) -> list[str]:
    """Return the names of the example's tops; those of an in-place example are its bottoms."""
    return [f"{'bottom' if example.in_place else 'top'}{i}" for i in range(example.tops)]


def layer_of(layer_type: LayerType, example: Example) -> Layer:
    """Return the example's layer; its bottoms have their shapes."""
    net = parse_net(prototxt(layer_type, example), f"example {example.name!r} of {layer_type.type}").at(example.phase)
    (layer,) = net.layers
    assert all(isinstance(value, Value) and value.shape is not None for value in layer.bottoms)
    return layer


def seed(layer_type: LayerType, example: Example) -> int:
    """Return the seed of the example's random numbers."""
    return zlib.crc32(f"{layer_type.type}/{example.name}".encode())


def draw(layer_type: LayerType, example: Example) -> tuple[list[Array], dict[str, Array], np.random.Generator]:
    """Return the example's bottoms, its learned blobs by role, and the generator for further numbers."""
    rng = np.random.default_rng(seed(layer_type, example))
    bottoms = list(example.draw_bottoms(rng))
    specs = layer_type.blobs(layer_of(layer_type, example), example.bottoms)
    blobs = {role: example.blobs(rng, spec.shape).astype("float32") for role, spec in specs.items()}
    return bottoms, blobs, rng


def fingerprint(examples: Sequence[Example], layer_type: LayerType) -> str:
    """Return a checksum of the examples, so that a golden file of older examples is noticed."""
    texts = [f"{e.name}|{e.phase}|{e.in_place}|{e.gradients}|{prototxt(layer_type, e)}" for e in examples]
    return f"{zlib.crc32(chr(10).join(texts).encode()):08x}"


def load(layer_type: LayerType) -> dict[str, Array]:
    """Return the arrays of a type's golden file."""
    with np.load(path(layer_type)) as stored:
        return dict(stored)
