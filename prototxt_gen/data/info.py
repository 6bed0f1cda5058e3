"""What a data set holds, and its mean: `data info` and `data mean`."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.data import images
from prototxt_gen.data.data_errors import DataError, named
from prototxt_gen.data.data_set_reader import Dataset, Hdf5Dataset, LmdbDataset, SourceDataset, open_dataset
from prototxt_gen.data.sources import FileSource

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

_THREADS = 4
_WINDOW = 256  # samples in flight: enough for the threads, little enough for the memory


@dataclass(frozen=True)
class Info:
    """One data set. `shapes` and `labels` count samples: {"3x32x32": 50000}, {0: 5000, 1: 5000}.

    `encoded` is the number of samples stored as picture files; `bytes` is what the set takes on the disk; `classes`
    are the names of labels 0, 1, ... where a labels.txt or the source itself has them.
    """

    path: Path
    kind: str
    count: int
    shapes: dict[str, int]
    dtype: str
    labels: dict[int, int]
    encoded: int
    bytes: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Mean:
    """`pixels`: channels x height x width, float32, None where shapes differ; `channels`: one number for each."""

    count: int
    channels: tuple[float, ...]
    pixels: Array | None
    written: Path | None = None


def info(path: str | Path, kind: str | None = None, progress: Progress | None = None, **options: Any) -> Info:
    """Go through a data set and count. Pictures are not decoded: a JPEG's or PNG's header has its size.

    `options` are `open_dataset`'s. Raises DataError for what cannot be opened, or for the first damaged sample.
    """
    dataset = open_dataset(path, kind, **options)
    shapes: Counter[str] = Counter()
    labels: Counter[int] = Counter()
    types: Counter[str] = Counter()
    encoded = 0
    for shape, label, dtype, packed in _each(dataset, lambda index: _glance(dataset, index), progress):
        shapes["x".join(map(str, shape))] += 1
        labels[label] += 1
        types[dtype] += 1
        encoded += packed
    return Info(
        dataset.path, dataset.kind, len(dataset), dict(shapes.most_common()), named(sorted(types)),
        dict(sorted(labels.items())), encoded, _bytes(dataset), classes_of(dataset),
    )  # fmt: skip


def mean(
    path: str | Path,
    out: str | Path | None = None,
    kind: str | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Mean:
    """Return the mean per pixel and per channel; with `out`, write the former as .binaryproto (1 x C x H x W).

    Summed in float64: Caffe's compute_image_mean adds in float32 and loses the last digits on large sets. The mean
    per channel counts every pixel of every picture once, so it exists where shapes differ; `out` then is an error.
    """
    if out is not None and Path(out).exists() and not force:
        raise DataError(f"{out}: there already; --force overwrites")
    dataset = open_dataset(path, kind, **options)
    total, pixels, areas = _sums(dataset, progress)
    channels = tuple(float(value) for value in total / areas)
    average = None if pixels is None else (pixels / len(dataset)).astype(np.float32)
    if out is None:
        return Mean(len(dataset), channels, average)
    if average is None:
        raise DataError(f"{dataset.path}: pictures differ in size, so there is no mean per pixel; resize them")
    from prototxt_gen.caffemodel import write_binaryproto

    write_binaryproto(Path(out), average[None], force=force)
    return Mean(len(dataset), channels, average, Path(out))


def _sums(dataset: Dataset, progress: Progress | None) -> tuple[Array, Array | None, int]:
    """Return the sum per channel, the sum per pixel (None where shapes differ) and the number of pixels per channel."""
    first = dataset[0][0]
    channels: Array = np.zeros(first.shape[0])
    pixels: Array | None = np.zeros(first.shape)
    area = 0
    for image, _ in _each(dataset, dataset.sample, progress):
        if len(image) != len(channels):
            raise DataError(f"{dataset.path}: some samples have {len(channels)} channels, some {len(image)}")
        channels += image.sum(axis=tuple(range(1, image.ndim)), dtype=np.float64)
        area += image[0].size
        if pixels is not None and pixels.shape == image.shape:
            pixels += image
        else:
            pixels = None
    return channels, pixels, area


def _each(dataset: Dataset, look: Callable[[int], Any], progress: Progress | None) -> Iterator[Any]:
    """Yield look(index) for every sample in order, worked out by threads a window at a time."""
    total = len(dataset)
    if not total:
        raise DataError(f"{dataset.path} holds no samples")
    if _decoding_free(dataset):  # no work for threads, which would only get into each other's way
        found = map(look, range(total))
        yield from _told(found, total, progress)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        windows = (range(start, min(start + _WINDOW, total)) for start in range(0, total, _WINDOW))
        yield from _told(itertools.chain.from_iterable(pool.map(look, window) for window in windows), total, progress)


def _decoding_free(dataset: Dataset) -> bool:
    if isinstance(dataset, LmdbDataset):
        return not dataset.datum(0).encoded
    return not (isinstance(dataset, SourceDataset) and isinstance(dataset.source, FileSource))


def _told(found: Iterator[Any], total: int, progress: Progress | None) -> Iterator[Any]:
    for done, one in enumerate(found, 1):
        yield one
        if progress:
            progress(done, total)


def _glance(dataset: Dataset, index: int) -> tuple[tuple[int, ...], int, str, bool]:
    """Return (shape, label, type, whether a picture file) with as little decoding as possible."""
    if isinstance(dataset, LmdbDataset):
        found = dataset.datum(index)
        if found.encoded:
            return images.size_of(found.data), found.label, "uint8", True
        stored = found.array()
        return stored.shape, found.label, str(stored.dtype), False
    if isinstance(dataset, SourceDataset) and (raw := dataset.source.file(index)) is not None:
        return images.size_of(raw), int(dataset.source.labels[index]), "uint8", True
    image, label = dataset.sample(index)
    return image.shape, label, str(image.dtype), False


def _bytes(dataset: Dataset) -> int:
    if isinstance(dataset, Hdf5Dataset):
        return sum(file.stat().st_size for file in dataset.files)
    if isinstance(dataset, SourceDataset) and isinstance(dataset.source, FileSource):
        return sum(dataset.source.path(index).stat().st_size for index in range(len(dataset)))
    files = [dataset.path] if dataset.path.is_file() else [file for file in dataset.path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def classes_of(dataset: Dataset) -> tuple[str, ...]:
    """Return the names of labels 0, 1, ..., from the source or a labels.txt beside the data; none where neither is."""
    if isinstance(dataset, SourceDataset):
        return dataset.source.classes
    folder = dataset.path if dataset.path.is_dir() else dataset.path.parent
    file = folder / "labels.txt"
    return tuple(file.read_text().split("\n")[:-1]) if file.is_file() else ()
