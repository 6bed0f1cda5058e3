"""What a net is run on to compare runtimes: seeded inputs that fit what the layers do with them, or a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.common.net_with_weights import Subject, check_shapes
from prototxt_gen.common.errors import NetError, PrototxtGenError
from prototxt_gen.ir import Layer, Shape, Value
from prototxt_gen.layers.common.embed import EmbedParameter

Array = np.ndarray[Any, Any]
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")


def seeded(subject: Subject, seed: int = 0) -> dict[str, Array]:
    """Return float32 inputs by blob name: images are noise with soft patches, indices and marks are whole numbers."""
    rng = np.random.default_rng(seed)
    return {value.blob: _drawn(subject, value, rng) for value in subject.sources}


def _drawn(subject: Subject, value: Value, rng: np.random.Generator) -> Array:
    shape = subject.analysis.shapes[value]
    for layer in subject.net.layers:
        if value in layer.bottoms:
            made = _for_layer(layer, layer.bottoms.index(value), shape, subject, rng)
            if made is not None:
                return made.astype("float32")
    if len(shape) == 4 and subject.preprocessing and subject.preprocessing.fits(shape[1]):
        return subject.preprocessing.apply(255 * _patchy(rng, shape))
    return (2 * _patchy(rng, shape) - 1).astype("float32")


def _for_layer(layer: Layer, index: int, shape: Shape, subject: Subject, rng: np.random.Generator) -> Array | None:
    """Return what a layer that takes an input at this place can work with; None where any number will do."""
    if layer.type == "Embed":
        return rng.integers(0, layer.get(EmbedParameter).input_dim, shape)
    if layer.type in ("LSTM", "RNN") and index == 1:
        marks = np.ones(shape)
        marks[0] = 0
        return marks
    if layer.type == "BatchReindex" and index == 1:
        return rng.integers(0, subject.analysis.shapes[layer.bottoms[0]][0], shape)
    if layer.type == "Filter" and index == len(layer.bottoms) - 1:
        return rng.integers(0, 2, shape)
    if layer.type in ("ROIPooling", "PSROIPooling") and index == 1:
        return _regions(shape, subject.analysis.shapes[layer.bottoms[0]], rng)
    if layer.type in ("Proposal", "Python") and index == 2:
        return _image_sizes(shape, subject)
    return None


def _regions(shape: Shape, image: Shape, rng: np.random.Generator) -> Array:
    """Return rows image, x1, y1, x2, y2 that lie around a map of this size."""
    rows = int(np.prod(shape)) // 5
    corners = rng.uniform(0, 16 * max(image[2:]), (rows, 2, 2))
    corners.sort(axis=1)
    whole = np.floor(corners.reshape(rows, 4))
    return np.column_stack([rng.integers(0, image[0], rows), whole]).reshape(shape)


def _image_sizes(shape: Shape, subject: Subject) -> Array:
    images = [s for v in subject.sources if len(s := subject.analysis.shapes[v]) == 4 and s[1] in (1, 3)]
    height, width = images[0][2:] if images else (224, 224)
    row = [height, width, 1.0, 1.0][: shape[-1]]
    return np.broadcast_to(np.asarray([*row, *[1.0] * (shape[-1] - len(row))]), shape)


def _patchy(rng: np.random.Generator, shape: Shape) -> Array:
    """Return numbers from 0 to 1: for images coarse patches under noise, since pure noise has no shapes in it."""
    noise = rng.uniform(0, 1, shape)
    if len(shape) != 4 or min(shape[2:]) < 8:
        return noise
    coarse = rng.uniform(0, 1, (*shape[:2], -(-shape[2] // 8), -(-shape[3] // 8)))
    patches = np.kron(coarse, np.ones((1, 1, 8, 8)))[..., : shape[2], : shape[3]]
    return 0.75 * patches + 0.25 * noise


def given(subject: Subject, path: Path) -> dict[str, Array]:
    """Return inputs from a file: a picture or a .npy for a net's only input, or a .npz of arrays by blob name."""
    if path.suffix.lower() in PICTURES:
        return {_only(subject).blob: _picture(subject, path)}
    arrays = _arrays(subject, path)
    shaped = {name: _shaped(subject, name, array.astype("float32")) for name, array in arrays.items()}
    check_shapes(subject, {name: array.shape for name, array in shaped.items()})
    missing = [value.blob for value in subject.sources if value.blob not in shaped]
    if missing:
        raise PrototxtGenError(f"{path}: it has no array for input {missing[0]!r}")
    return shaped


def _only(subject: Subject) -> Value:
    found = subject.sources
    if len(found) != 1:
        raise PrototxtGenError(f"the net has {len(found)} inputs; give a .npz with an array for each")
    return found[0]


def _arrays(subject: Subject, path: Path) -> Mapping[str, Array]:
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise PrototxtGenError(f"{path}: neither a picture nor a NumPy file: {error}") from None
    if isinstance(stored, np.ndarray):
        return {_only(subject).blob: stored}
    with stored:
        return {name: stored[name] for name in stored.files}


def _shaped(subject: Subject, name: str, array: Array) -> Array:
    """Return the array with a batch axis, if only that is missing."""
    for value in subject.sources:
        if value.blob == name and array.ndim + 1 == len(subject.analysis.shapes[value]):
            return array[None]
    return array


def _picture(subject: Subject, path: Path) -> Array:
    """Return a picture as the net takes it: resized, in its channel order (BGR unless told), mean and scale applied."""
    from prototxt_gen.data import images

    shape = subject.analysis.shapes[_only(subject)]
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise NetError(f"{path}: the net's input is {'x'.join(map(str, shape))}, no picture of 1 or 3 channels")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PrototxtGenError(f"{path}: {error.strerror or error}") from None
    pixels = images.resize(images.decode(data, shape[1] == 3, str(path)), (shape[2], shape[3]))
    ordered = pixels[..., ::-1] if subject.preprocessing.channel_order == "RGB" else pixels
    one = subject.preprocessing.apply(images.to_chw(ordered)[None])
    return np.array(np.broadcast_to(one, shape))
