"""Golden tensors: what real Caffe computes for every example of every room. `python -m tests.golden` records them."""

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


def path(room: LayerType) -> Path:
    return FOLDER / f"{room.type}.npz"


def prototxt(room: LayerType, example: Example) -> str:
    """Return the net that holds just this example."""
    lines = ['name: "example"', "force_backward: true"]
    for index, shape in enumerate(example.bottoms):
        dims = " ".join(f"dim: {dim}" for dim in shape)
        lines.append(f'input: "bottom{index}" input_shape {{ {dims} }}')
    bottoms = " ".join(f'bottom: "bottom{i}"' for i in range(len(example.bottoms)))
    tops = " ".join(f'top: "{top}"' for top in top_names(example))
    lines.append(f'layer {{ name: "it" type: "{room.type}" {bottoms} {tops} {example.params} }}')
    return "\n".join(lines)


def top_names(example: Example) -> list[str]:
    """An in-place example writes its tops over its bottoms."""
    return [f"{'bottom' if example.in_place else 'top'}{i}" for i in range(example.tops)]


def layer_of(room: LayerType, example: Example) -> Layer:
    """Return the example's layer, its bottoms with their shapes."""
    net = parse_net(prototxt(room, example), f"example {example.name!r} of {room.type}").at(example.phase)
    (layer,) = net.layers
    assert all(isinstance(value, Value) and value.shape is not None for value in layer.bottoms)
    return layer


def seed(room: LayerType, example: Example) -> int:
    return zlib.crc32(f"{room.type}/{example.name}".encode())


def draw(room: LayerType, example: Example) -> tuple[list[Array], dict[str, Array], np.random.Generator]:
    """Return the example's bottoms, its learned arrays by role, and the generator for what comes after."""
    rng = np.random.default_rng(seed(room, example))
    bottoms = list(example.draw_bottoms(rng))
    specs = room.blobs(layer_of(room, example), example.bottoms)
    blobs = {role: example.blobs(rng, spec.shape).astype("float32") for role, spec in specs.items()}
    return bottoms, blobs, rng


def fingerprint(examples: Sequence[Example], room: LayerType) -> str:
    """Changes when an example changes, so that a stale record is noticed."""
    texts = [f"{e.name}|{e.phase}|{e.in_place}|{e.gradients}|{prototxt(room, e)}" for e in examples]
    return f"{zlib.crc32(chr(10).join(texts).encode()):08x}"


def load(room: LayerType) -> dict[str, Array]:
    with np.load(path(room)) as stored:
        return dict(stored)
