"""What the data layers of a net give: shapes, for checking and for the memory estimate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError, UnsupportedError
from prototxt_gen.ir import Layer, Net, Shape
from prototxt_gen.layers.utility.python import PythonParameter
from prototxt_gen.train.data_layer_batches import MAKERS, Locate, batches_of

AUGMENTED = ("prototxt_gen.data.caffe_layer", "AugmentedData")


def data_shapes(net: Net, locate: Locate = Path) -> dict[str, Shape]:
    """Return the shapes of the blobs that data layers make, by opening their data sets and reading one batch of each.

    An error that names the layer where a data set is missing, empty or broken.
    """
    found: dict[str, Shape] = {}
    for layer in net.layers:
        shapes = _shapes(layer, locate)
        found.update((top.blob, shape) for top, shape in zip(layer.tops, shapes, strict=False))
    return found


def _shapes(layer: Layer, locate: Locate) -> tuple[Shape, ...]:
    if layer.type in MAKERS:
        try:
            return batches_of(layer, "TRAIN", 0, locate).shapes()
        except UnsupportedError:
            return ()  # only SSD's transformer knows
    return _augmented(located(layer, locate)) if is_augmented(layer) else ()


def is_augmented(layer: Layer) -> bool:
    """Whether this is our Python layer with augmentation."""
    own = layer.get(PythonParameter)
    return layer.type == "Python" and (own.module, own.layer) == AUGMENTED


def located(layer: Layer, locate: Locate) -> Layer:
    """Return our augmenting layer with its data set's path as `locate` finds it."""
    own = layer.get(PythonParameter)
    try:
        told = json.loads(own.param_str or "{}")
        told["source"] = str(locate(told["source"]))
    except (ValueError, KeyError, TypeError):
        return layer  # LoaderSpec says what is wrong with it
    return replace(layer, params=layer.params.replace(python_param=own.replace(param_str=json.dumps(told))))


def _augmented(layer: Layer) -> tuple[Shape, ...]:
    from prototxt_gen.data.batch_loader import BatchMaker, LoaderSpec

    try:
        spec = LoaderSpec.from_json(layer.get(PythonParameter).param_str)
        return ((spec.batch_size, *BatchMaker(spec).shape), (spec.batch_size,))
    except PrototxtGenError as error:
        raise PrototxtGenError(f"layer {layer.name!r} ({layer.type}): {error}") from error


def batch_size(net: Net, shapes: dict[str, Shape]) -> int:
    """Return the images of one batch, the first axis of the first blob that a data layer makes; 0 without one."""
    for layer in net.layers:
        for top in layer.tops:
            if shapes.get(top.blob) and not layer.bottoms:
                return shapes[top.blob][0]
    return 0


def locate(name: str, folder: Path) -> Path:
    """Return a file that a net names: from the working folder, as Caffe does, or else beside the solver."""
    beside = folder / name
    return beside if not Path(name).exists() and beside.exists() else Path(name)
