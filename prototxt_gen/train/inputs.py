"""What the data layers of a net give: shapes, for checking and for the memory estimate."""

from __future__ import annotations

from pathlib import Path

from prototxt_gen.errors import PrototxtGenError, UnsupportedError
from prototxt_gen.ir import Layer, Net, Shape
from prototxt_gen.layers.python import PythonParameter
from prototxt_gen.train.batches import MAKERS, Locate, batches_of

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
    return _augmented(layer) if is_augmented(layer) else ()


def is_augmented(layer: Layer) -> bool:
    """Whether this is our Python layer with augmentation."""
    own = layer.get(PythonParameter)
    return layer.type == "Python" and (own.module, own.layer) == AUGMENTED


def _augmented(layer: Layer) -> tuple[Shape, ...]:
    from prototxt_gen.data.loader import BatchMaker, LoaderSpec

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
