"""Small data sets with known content in every format that the toolkit reads."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def picture(seed: int, height: int = 12, width: int = 16) -> Array:
    """Return a smooth image (JPEG hardly changes it), height x width x 3, uint8, different for every seed."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * (seed % 5 + 1) + y * channel + 37 * seed) % 200 + 20 for channel in (1, 2, 3)]
    return np.stack(planes, 2).astype(np.uint8)


def write_picture(file: Path, image: Array) -> None:
    """Write an image in the format that its file name ends in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image)


def class_folders(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 3) -> Path:
    """Create a folder with one folder of PNGs per class: image number n of class c has seed 10 c + n."""
    for label, name in enumerate(classes):
        for number in range(each):
            write_picture(root / name / f"a {number}.png", picture(10 * label + number))
    return root


def write_npz(file: Path, count: int = 40, height: int = 6, width: int = 5, channels: int = 3) -> tuple[Array, Array]:
    """Write x and y as .npz and return them."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    y = np.arange(count) % 7
    np.savez(file, x=x, y=y)
    return x, y


def write_cifar10(folder: Path, per_file: int = 4) -> tuple[Array, Array]:
    """Write CIFAR's binary version, two training files and a test file; return the training images and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    records = rng.integers(0, 256, (3 * per_file, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(3 * per_file) % 10
    for name, part in zip(("data_batch_1", "data_batch_2", "test_batch"), np.split(records, 3), strict=True):
        part.tofile(folder / f"{name}.bin")
    (folder / "batches.meta.txt").write_text("\n".join(["plane", "car", *"abcdefgh"]) + "\n")
    train = records[: 2 * per_file]
    return train[:, 1:].reshape(-1, 3, 32, 32), train[:, 0]


def write_cifar10_python(folder: Path) -> tuple[Array, Array]:
    """Write CIFAR's Python version, as Python 2 did: protocol 2, keys and labels in a plain dictionary."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    data = rng.integers(0, 256, (5, 3072), dtype=np.uint8)
    batch = {b"data": data, b"labels": [3, 1, 4, 1, 5], b"filenames": [b"x.png"] * 5}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, 2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"plane"]}, 2))
    return data.reshape(-1, 3, 32, 32), np.array(batch[b"labels"])


def write_idx(folder: Path, zipped: bool, count: int = 9) -> tuple[Array, Array]:
    """Write MNIST's two training files, plain or .gz; return images and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(4).integers(0, 256, (count, 7, 5), dtype=np.uint8)
    labels = (np.arange(count) % 3).astype(np.uint8)
    for name, values in (("train-images-idx3-ubyte", pixels), ("train-labels-idx1-ubyte", labels)):
        data = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(data)) if zipped else (folder / name).write_bytes(data)
    return pixels, labels
