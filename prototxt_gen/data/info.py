"""The content of a data set and its mean image, for `data info` and `data mean`."""

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

from prototxt_gen.common.files import refuse_overwriting
from prototxt_gen.data import images
from prototxt_gen.data.data_errors import DataError, abbreviated
from prototxt_gen.data.data_set_reader import Dataset, Hdf5Dataset, LmdbDataset, SourceDataset, open_dataset
from prototxt_gen.data.sources import FileSource

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

_THREADS = 4
_SAMPLES_IN_FLIGHT = 256  # enough to keep the threads busy, and little memory


@dataclass(frozen=True)
class Info:
    """The content of a data set. `shapes` and `labels` count samples: {"3x32x32": 50000}, {0: 5000, 1: 5000}.

    `encoded` is the number of samples stored as image files; `bytes` is the size on disk; `classes` are the names of
    labels 0, 1, ... from a labels.txt or from the source itself.
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
    """The mean of a data set.

    `pixels`: channels x height x width, float32, None if shapes differ; `channels`: one mean per channel; `file`: the
    .binaryproto, if one was written.
    """

    count: int
    channels: tuple[float, ...]
    pixels: Array | None
    file: Path | None = None


def info(path: str | Path, kind: str | None = None, progress: Progress | None = None, **options: Any) -> Info:
    """Read a data set and return its content. JPEG and PNG files are not decoded: their header has the size.

    `options` are those of `open_dataset`. Raises DataError for a data set that cannot be opened or a damaged sample.
    """
    dataset = open_dataset(path, kind, **options)
    shapes: Counter[str] = Counter()
    labels: Counter[int] = Counter()
    types: Counter[str] = Counter()
    encoded = 0
    for shape, label, dtype, is_file in _map_samples(
        dataset, lambda index: _summarise_sample(dataset, index), progress
    ):
        shapes["x".join(map(str, shape))] += 1
        labels[label] += 1
        types[dtype] += 1
        encoded += is_file
    return Info(
        dataset.path, dataset.kind, len(dataset), dict(shapes.most_common()), abbreviated(sorted(types)),
        dict(sorted(labels.items())), encoded, _bytes_on_disk(dataset), label_names(dataset),
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
    """Return the mean per pixel and per channel; with `out`, write the mean per pixel as .binaryproto (1 x C x H x W).

    Sums are in float64: Caffe's compute_image_mean adds in float32 and loses the last digits on large data sets. The
    mean per channel also exists where image sizes differ; then `out` raises DataError.
    """
    if out is not None:
        refuse_overwriting([Path(out)], force)
    dataset = open_dataset(path, kind, **options)
    total, pixels, areas = _sums(dataset, progress)
    channels = tuple(float(value) for value in total / areas)
    average = None if pixels is None else (pixels / len(dataset)).astype(np.float32)
    if out is None:
        return Mean(len(dataset), channels, average)
    if average is None:
        raise DataError(f"{dataset.path}: images differ in size, so there is no mean per pixel; resize them")
    from prototxt_gen.caffemodel import write_binaryproto

    write_binaryproto(Path(out), average[None], force=force)
    return Mean(len(dataset), channels, average, Path(out))


def _sums(dataset: Dataset, progress: Progress | None) -> tuple[Array, Array | None, int]:
    """Return the sum per channel, the sum per pixel (None if shapes differ) and the number of pixels per channel."""
    first = dataset[0][0]
    channels: Array = np.zeros(first.shape[0])
    pixels: Array | None = np.zeros(first.shape)
    area = 0
    for image, _ in _map_samples(dataset, dataset.sample, progress):
        if len(image) != len(channels):
            raise DataError(f"{dataset.path}: some samples have {len(channels)} channels, some {len(image)}")
        channels += image.sum(axis=tuple(range(1, image.ndim)), dtype=np.float64)
        area += image[0].size
        if pixels is not None and pixels.shape == image.shape:
            pixels += image
        else:
            pixels = None
    return channels, pixels, area


def _map_samples(dataset: Dataset, function: Callable[[int], Any], progress: Progress | None) -> Iterator[Any]:
    """Yield look(index) for every sample in order, worked out by threads a window at a time."""
    total = len(dataset)
    if not total:
        raise DataError(f"{dataset.path} holds no samples")
    if _needs_no_decoding(dataset):  # without decoding, threads would only slow each other down
        results = map(function, range(total))
        yield from _with_progress(results, total, progress)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        windows = (
            range(start, min(start + _SAMPLES_IN_FLIGHT, total)) for start in range(0, total, _SAMPLES_IN_FLIGHT)
        )
        yield from _with_progress(
            itertools.chain.from_iterable(pool.map(function, window) for window in windows), total, progress
        )


def _needs_no_decoding(dataset: Dataset) -> bool:
    if isinstance(dataset, LmdbDataset):
        return not dataset.datum(0).encoded
    return not (isinstance(dataset, SourceDataset) and isinstance(dataset.source, FileSource))


def _with_progress(results: Iterator[Any], total: int, progress: Progress | None) -> Iterator[Any]:
    for done, result in enumerate(results, 1):
        yield result
        if progress:
            progress(done, total)


def _summarise_sample(dataset: Dataset, index: int) -> tuple[tuple[int, ...], int, str, bool]:
    """Return (shape, label, type, whether it is an image file) of a sample, decoded only if necessary."""
    if isinstance(dataset, LmdbDataset):
        datum = dataset.datum(index)
        if datum.encoded:
            return images.shape_of_file(datum.data), datum.label, "uint8", True
        stored = datum.array()
        return stored.shape, datum.label, str(stored.dtype), False
    if isinstance(dataset, SourceDataset) and (raw := dataset.source.file(index)) is not None:
        return images.shape_of_file(raw), int(dataset.source.labels[index]), "uint8", True
    image, label = dataset.sample(index)
    return image.shape, label, str(image.dtype), False


def _bytes_on_disk(dataset: Dataset) -> int:
    if isinstance(dataset, Hdf5Dataset):
        return sum(file.stat().st_size for file in dataset.files)
    if isinstance(dataset, SourceDataset) and isinstance(dataset.source, FileSource):
        return sum(dataset.source.path(index).stat().st_size for index in range(len(dataset)))
    files = [dataset.path] if dataset.path.is_file() else [file for file in dataset.path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def label_names(dataset: Dataset) -> tuple[str, ...]:
    """Return the names of labels 0, 1, ..., from the source or from labels.txt beside the data; () if unknown."""
    if isinstance(dataset, SourceDataset):
        return dataset.source.classes
    folder = dataset.path if dataset.path.is_dir() else dataset.path.parent
    file = folder / "labels.txt"
    return tuple(file.read_text().split("\n")[:-1]) if file.is_file() else ()
