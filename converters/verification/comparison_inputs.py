"""Inputs for comparing runtimes: seeded random arrays that suit the layers that use them, or arrays from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.common.net_with_weights import NetWithWeights, check_input_shapes
from prototxt_gen.common.errors import NetError, PrototxtGenError
from prototxt_gen.ir import Layer, Shape, Value
from prototxt_gen.layers.common.embed import EmbedParameter

Array = np.ndarray[Any, Any]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")


def seeded_inputs(model: NetWithWeights, seed: int = 0) -> dict[str, Array]:
    """Return random float32 inputs by blob name.

    Images are coarse patches with noise, with the model's preprocessing applied; indices and flags are whole numbers.
    """
    rng = np.random.default_rng(seed)
    return {value.blob: _random_input(model, value, rng) for value in model.input_values}


def _random_input(model: NetWithWeights, value: Value, rng: np.random.Generator) -> Array:
    shape = model.analysis.shapes[value]
    for layer in model.net.layers:
        if value in layer.bottoms:
            special = _array_for_layer(layer, layer.bottoms.index(value), shape, model, rng)
            if special is not None:
                return np.asarray(special, "float32")
    if len(shape) == 4 and model.preprocessing and model.preprocessing.fits_channels(shape[1]):
        return model.preprocessing.apply(255 * _random_patches(rng, shape))
    return np.asarray(2 * _random_patches(rng, shape) - 1, "float32")


def _array_for_layer(
    layer: Layer, index: int, shape: Shape, model: NetWithWeights, rng: np.random.Generator
) -> Array | None:
    """Return an array that is valid as bottom number `index` of the layer; None if the layer accepts any numbers."""
    if layer.type == "Embed":
        return rng.integers(0, layer.get(EmbedParameter).input_dim, shape)
    if layer.type in ("LSTM", "RNN") and index == 1:
        continuation_flags = np.ones(shape)
        continuation_flags[0] = 0
        return continuation_flags
    if layer.type == "BatchReindex" and index == 1:
        return rng.integers(0, model.analysis.shapes[layer.bottoms[0]][0], shape)
    if layer.type == "Filter" and index == len(layer.bottoms) - 1:
        return rng.integers(0, 2, shape)
    if layer.type in ("ROIPooling", "PSROIPooling") and index == 1:
        return _random_regions(shape, model.analysis.shapes[layer.bottoms[0]], rng)
    if layer.type in ("Proposal", "Python") and index == 2:
        return _image_sizes(shape, model)
    return None


def _random_regions(shape: Shape, feature_map: Shape, rng: np.random.Generator) -> Array:
    """Return random regions as rows of image index, x1, y1, x2, y2. `feature_map`: shape of the map that is pooled."""
    rows = int(np.prod(shape)) // 5
    corners = rng.uniform(0, 16 * max(feature_map[2:]), (rows, 2, 2))
    corners.sort(axis=1)
    whole = np.floor(corners.reshape(rows, 4))
    return np.column_stack([rng.integers(0, feature_map[0], rows), whole]).reshape(shape)


def _image_sizes(shape: Shape, model: NetWithWeights) -> Array:
    """Return rows of image height, width and scale factors, as detection layers expect them."""
    images = [s for v in model.input_values if len(s := model.analysis.shapes[v]) == 4 and s[1] in (1, 3)]
    height, width = images[0][2:] if images else (224, 224)
    row = [height, width, 1.0, 1.0][: shape[-1]]
    return np.broadcast_to(np.asarray([*row, *[1.0] * (shape[-1] - len(row))]), shape)


def _random_patches(rng: np.random.Generator, shape: Shape) -> Array:
    """Return numbers from 0 to 1. Images are 8×8 patches plus noise, because pure noise has no structure."""
    noise = np.asarray(rng.uniform(0, 1, shape))  # without axes it is a number
    if len(shape) != 4 or min(shape[2:]) < 8:
        return noise
    coarse = rng.uniform(0, 1, (*shape[:2], -(-shape[2] // 8), -(-shape[3] // 8)))
    patches = np.kron(coarse, np.ones((1, 1, 8, 8)))[..., : shape[2], : shape[3]]
    return 0.75 * patches + 0.25 * noise


def inputs_from_file(model: NetWithWeights, path: Path) -> dict[str, Array]:
    """Return float32 inputs by blob name from a file.

    `path`: an image or a .npy for a net with one input, or a .npz with an array per input, by blob name. A missing
    batch axis is added; an image is resized and preprocessed. Raises PrototxtGenError if the file cannot be read or
    lacks an input, and UnsupportedError if a shape is wrong.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return {_only_input(model).blob: _read_image(model, path)}
    arrays = _read_arrays(model, path)
    shaped = {name: _with_batch_axis(model, name, array.astype("float32")) for name, array in arrays.items()}
    check_input_shapes(model, {name: array.shape for name, array in shaped.items()})
    missing = [value.blob for value in model.input_values if value.blob not in shaped]
    if missing:
        raise PrototxtGenError(f"{path}: it has no array for input {missing[0]!r}")
    return shaped


def _only_input(model: NetWithWeights) -> Value:
    inputs = model.input_values
    if len(inputs) != 1:
        raise PrototxtGenError(f"the net has {len(inputs)} inputs; give a .npz with an array for each")
    return inputs[0]


def _read_arrays(model: NetWithWeights, path: Path) -> Mapping[str, Array]:
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise PrototxtGenError(f"{path}: neither an image nor a NumPy file: {error}") from None
    if isinstance(stored, np.ndarray):
        return {_only_input(model).blob: stored}
    with stored:
        return {name: stored[name] for name in stored.files}


def _with_batch_axis(model: NetWithWeights, name: str, array: Array) -> Array:
    """Return the array with a batch axis added, if only that axis is missing."""
    for value in model.input_values:
        if value.blob == name and array.ndim + 1 == len(model.analysis.shapes[value]):
            return array[None]
    return array


def _read_image(model: NetWithWeights, path: Path) -> Array:
    """Return an image as the net expects it: resized, in its channel order (default: BGR), mean and scale applied."""
    from prototxt_gen.data import images

    shape = model.analysis.shapes[_only_input(model)]
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise NetError(f"{path}: the net's input is {'x'.join(map(str, shape))}, not an image of 1 or 3 channels")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PrototxtGenError(f"{path}: {error.strerror or error}") from None
    pixels = images.resize(images.decode(data, shape[1] == 3, str(path)), (shape[2], shape[3]))
    ordered = pixels[..., ::-1] if model.preprocessing.channel_order == "RGB" else pixels
    blob = model.preprocessing.apply(images.to_chw(ordered)[None])
    return np.array(np.broadcast_to(blob, shape))
