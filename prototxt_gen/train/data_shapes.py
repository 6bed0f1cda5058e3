"""Shapes of the blobs that a net's data layers produce, for checks and for the memory estimate before training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from prototxt_gen.analysis.net_analysis import data_layer_refusal
from prototxt_gen.common.errors import PrototxtGenError, UnsupportedError
from prototxt_gen.ir import Layer, Net, Shape
from prototxt_gen.layers.utility.python import PythonParameter
from prototxt_gen.train.data_layer_batches import BATCHES_BY_TYPE, Locate, batches_of

AUGMENTED_DATA = ("prototxt_gen.data.caffe_layer", "AugmentedData")
"""`module` and `layer` of our Python layer with augmentation in a python_param."""


def data_shapes(net: Net, locate: Locate = Path) -> dict[str, Shape]:
    """Open the data sets of a net, read one batch of each, and return the shapes of the data layers' tops by blob name.

    Raises PrototxtGenError, naming the layer, if a data set is missing, empty or damaged.
    """
    shapes_by_blob: dict[str, Shape] = {}
    for layer in net.layers:
        shapes = _top_shapes(layer, locate)
        shapes_by_blob.update((top.blob, shape) for top, shape in zip(layer.tops, shapes, strict=False))
    return shapes_by_blob


def _top_shapes(layer: Layer, locate: Locate) -> tuple[Shape, ...]:
    if layer.type in BATCHES_BY_TYPE:
        if data_layer_refusal(layer) is not None:
            return ()  # the checks report it
        try:
            return batches_of(layer, "TRAIN", 0, locate).shapes()
        except UnsupportedError:
            return ()  # the shape depends on fields that only SSD's DataTransformer has
    return _augmented_data_shapes(with_located_source(layer, locate)) if is_augmented_data(layer) else ()


def is_augmented_data(layer: Layer) -> bool:
    """Whether this is our Python layer with augmentation, `AugmentedData`."""
    params = layer.get(PythonParameter)
    return layer.type == "Python" and (params.module, params.layer) == AUGMENTED_DATA


def with_located_source(layer: Layer, locate: Locate) -> Layer:
    """Return an `AugmentedData` layer with the path of its data set replaced by what `locate` returns for it."""
    params = layer.get(PythonParameter)
    try:
        fields = json.loads(params.param_str or "{}")
        fields["source"] = str(locate(fields["source"]))
    except (ValueError, KeyError, TypeError):
        return layer  # LoaderSpec reports what is wrong with param_str
    return replace(layer, params=layer.params.replace(python_param=params.replace(param_str=json.dumps(fields))))


def _augmented_data_shapes(layer: Layer) -> tuple[Shape, ...]:
    from prototxt_gen.data.batch_loader import BatchMaker, LoaderSpec

    try:
        spec = LoaderSpec.from_json(layer.get(PythonParameter).param_str)
        return ((spec.batch_size, *BatchMaker(spec).shape), (spec.batch_size,))
    except PrototxtGenError as error:
        raise PrototxtGenError(f"layer {layer.name!r} ({layer.type}): {error}") from error


def batch_size(net: Net, shapes: dict[str, Shape]) -> int:
    """Return the first axis of the first data-layer top, that is, the images per batch; 0 without a data layer."""
    for layer in net.layers:
        for top in layer.tops:
            if shapes.get(top.blob) and not layer.bottoms:
                return shapes[top.blob][0]
    return 0


def locate_beside_solver(name: str, folder: Path) -> Path:
    """Return the path of a file that a net names: relative to the working folder, as in Caffe, else to `folder`."""
    beside = folder / name
    return beside if not Path(name).exists() and beside.exists() else Path(name)
