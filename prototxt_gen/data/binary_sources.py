"""Sources that consist of a few large files: .npz, CIFAR (binary and Python version), MNIST's IDX files.

The channel order is that of the files: CIFAR stays RGB, as in Caffe's examples/cifar10/convert_cifar_data.cpp, so nets
trained on one can read the other.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.data.data_errors import DataError, abbreviated
from prototxt_gen.data.safe_pickle import load_arrays
from prototxt_gen.data.sources import ArraySource, choose_split, read_lines

Array = npt.NDArray[Any]

_CIFAR_PIXELS = 3 * 32 * 32
_NPZ_PIXELS = ("x", "images", "image", "data")
_NPZ_LABELS = ("y", "labels", "label", "targets", "target")
_NPZ_SPLITS = ("train", "val", "valid", "test")


def npz_source(src: Path, split: str | None = None) -> ArraySource:
    """Return the source of a .npz with arrays `x` and `y`, or with a split in the names (x_train, train_x, ...)."""
    try:
        with np.load(src, allow_pickle=False) as stored:
            names = choose_split(_npz_parts(stored.files, src), split, src)
            pixels, labels = stored[names[0]], stored[names[1]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {src} as .npz: {error}") from error
    pixels, planar = _as_images(pixels, f"{src}, array {names[0]!r}")
    return ArraySource("npz", pixels, _as_labels(labels, len(pixels), f"{src}, array {names[1]!r}"), planar)


def _npz_parts(names: Sequence[str], src: Path) -> dict[str, tuple[str, str]]:
    """Return {split: (name of the pixel array, name of the label array)} for every pair of arrays."""
    lower = {name.lower(): name for name in names}
    parts = {}
    for part in ("", *_NPZ_SPLITS):
        pixels = _first_name_of(lower, _NPZ_PIXELS, part)
        labels = _first_name_of(lower, _NPZ_LABELS, part)
        if pixels and labels:
            parts[part or "all"] = (pixels, labels)
    if not parts:
        raise DataError(
            f"{src} holds {abbreviated(sorted(names))}: expected x and y, or x_train and y_train, or the like"
        )
    return parts


def _first_name_of(lower: Mapping[str, str], stems: Sequence[str], part: str) -> str | None:
    spellings = (form for stem in stems for form in ((f"{stem}_{part}", f"{part}_{stem}") if part else (stem,)))
    return next((lower[form] for form in spellings if form in lower), None)


def _as_images(pixels: Array, where: str) -> tuple[Array, bool]:
    """Return N x H x W x C or N x C x H x W, and whether it is the latter. The channel axis has 1, 3 or 4 elements."""
    if pixels.dtype.kind not in "uif":
        raise DataError(f"{where}: has type {pixels.dtype}, expected numbers")
    if pixels.ndim == 3:
        return _as_bytes(pixels[..., None]), False
    if pixels.ndim != 4:
        raise DataError(f"{where}: has shape {pixels.shape}, expected N x H x W, N x H x W x C or N x C x H x W")
    if pixels.shape[3] not in (1, 3, 4) and pixels.shape[1] not in (1, 3, 4):
        raise DataError(f"{where}: has shape {pixels.shape}, of which no axis looks like 1, 3 or 4 channels")
    return _as_bytes(pixels), pixels.shape[3] not in (1, 3, 4)


def _as_bytes(pixels: Array) -> Array:
    """Return integers from 0 to 255 as uint8, which needs a quarter of the memory; anything else as float32."""
    if pixels.dtype.kind in "ui" and pixels.size and pixels.min() >= 0 and pixels.max() <= 255:
        return pixels.astype(np.uint8, copy=False)
    return pixels.astype(np.float32, copy=False)


def _as_labels(labels: Array, count: int, where: str) -> Array:
    flat = labels.reshape(-1) if labels.size == len(labels) else labels
    if flat.ndim != 1 or len(flat) != count:
        raise DataError(f"{where}: has shape {labels.shape}, expected one label for each of {count} images")
    if flat.dtype.kind not in "ui" and not (flat.dtype.kind == "f" and np.all(flat == np.round(flat))):
        raise DataError(f"{where}: labels must be whole numbers, these are {flat.dtype}")
    return flat.astype(np.int64)


def cifar_source(src: Path, kind: str, split: str | None = None) -> ArraySource:
    """Return the source of CIFAR's binary version. `kind`: "cifar10", "cifar100" (fine labels) or "cifar100-coarse".

    A record is the label (for CIFAR-100 coarse, then fine) and 3 x 32 x 32 bytes, red plane first.
    """
    files = [src] if src.is_file() else choose_split(_cifar_parts(src, ".bin"), split, src)
    width = (1 if kind == "cifar10" else 2) + _CIFAR_PIXELS
    records = np.concatenate([_records(file, width) for file in files])
    labels = records[:, 0 if kind != "cifar100" else 1]
    pixels = records[:, -_CIFAR_PIXELS:].reshape(-1, 3, 32, 32)
    return ArraySource(kind, pixels, labels, True, _cifar_classes(src if src.is_dir() else src.parent, kind))


def _cifar_parts(src: Path, suffix: str) -> dict[str, list[Path]]:
    train = sorted(src.glob(f"data_batch_[0-9]{suffix}")) or sorted(src.glob(f"train{suffix}"))
    test = [file for file in (src / f"test_batch{suffix}", src / f"test{suffix}") if file.is_file()]
    return {name: files for name, files in (("train", train), ("test", test)) if files}


def _records(file: Path, width: int) -> Array:
    data = np.fromfile(file, np.uint8)
    if not data.size or data.size % width:
        raise DataError(f"{file}: {data.size} bytes are no whole number of records of {width}; cut short?")
    return data.reshape(-1, width)


def _cifar_classes(folder: Path, kind: str) -> list[str]:
    names = {"cifar10": "batches.meta.txt", "cifar100": "fine_label_names.txt"}
    file = folder / names.get(kind, "coarse_label_names.txt")
    return [line.strip() for line in read_lines(file) if line.strip()] if file.is_file() else []


def cifar_python_source(src: Path, split: str | None = None) -> ArraySource:
    """Return the source of CIFAR's Python version. Its pickles could run code, so only plain arrays are accepted."""
    files = [src] if src.is_file() else choose_split(_cifar_parts(src, ""), split, src)
    batches = [load_arrays(file) for file in files]
    pixels = np.concatenate([_cifar_entry(batch, ("data",), file) for batch, file in zip(batches, files, strict=True)])
    names = ("labels", "fine_labels")
    labels = np.concatenate([_cifar_entry(batch, names, file) for batch, file in zip(batches, files, strict=True)])
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _CIFAR_PIXELS or len(pixels) != len(labels):
        raise DataError(f"{src}: {pixels.shape} values and {len(labels)} labels are not CIFAR's")
    return ArraySource("cifar-python", pixels.reshape(-1, 3, 32, 32), labels, True)


def _cifar_entry(batch: object, names: Sequence[str], file: Path) -> Array:
    entries = batch if isinstance(batch, dict) else {}
    for name in names:
        value = entries.get(name, entries.get(name.encode()))
        if value is not None:
            return np.asarray(value)
    raise DataError(f"{file} is not a CIFAR batch: it has no {abbreviated(names)}")


def idx_source(src: Path, split: str | None = None) -> ArraySource:
    """Return the source of IDX files (MNIST, Fashion-MNIST, EMNIST), plain or .gz: a folder, or one file of images."""
    pixels_file = src if src.is_file() else choose_split(_idx_parts(src), split, src)
    labels_file = _idx_labels_beside(pixels_file)
    pixels, labels = read_idx(pixels_file), read_idx(labels_file)
    if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels) or pixels.dtype != np.uint8:
        raise DataError(f"{pixels_file} and {labels_file} do not belong together: {pixels.shape} and {labels.shape}")
    return ArraySource("idx", pixels[..., None], labels, False)


def _idx_parts(src: Path) -> dict[str, Path]:
    image_files = sorted(file for file in src.iterdir() if "idx3" in file.name and "images" in file.name)
    parts = {"test" if "t10k" in file.name or "test" in file.name else "train": file for file in image_files}
    if not parts:
        raise DataError(f"{src} holds no IDX files of images (named like train-images-idx3-ubyte)")
    return parts


def _idx_labels_beside(pixels_file: Path) -> Path:
    """Return the labels file beside an images file: images -> labels, idx3 -> idx1, with or without .gz."""
    name = pixels_file.name.replace("images", "labels").replace("idx3", "idx1")
    plain = name.removesuffix(".gz")
    for candidate in (name, plain, f"{plain}.gz"):
        if candidate != pixels_file.name and (pixels_file.parent / candidate).is_file():
            return pixels_file.parent / candidate
    raise DataError(f"{pixels_file} has no file of labels beside it (looked for {plain})")


def read_idx(file: Path) -> Array:
    """Return the array of an IDX file: two zero bytes, type, number of axes, their sizes (big-endian), values."""
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    types = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in types or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{file} is not an IDX file")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    dtype, start = np.dtype(types[data[2]]), 4 + 4 * data[3]
    if len(data) - start != math.prod(shape) * dtype.itemsize:
        raise DataError(f"{file} is damaged: {len(data) - start} bytes of values for shape {shape}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)
