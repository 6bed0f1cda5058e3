"""Sources of samples: folders of classes, list files, and arrays (.npz, CIFAR, MNIST).

A source is a sequence of `Sample`s. Any number of threads may read samples, in any order.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from prototxt_gen.common.errors import nearest
from prototxt_gen.data import images
from prototxt_gen.data.data_errors import BrokenImageError, DataError, abbreviated

Array = npt.NDArray[Any]
T = TypeVar("T")

_SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")


@dataclass(frozen=True)
class Sample:
    """One image (height x width x channels, uint8 or float) with its class and its name."""

    image: Array
    label: int
    key: str


class SampleSource:
    """The base class of all sources. `order` is the channel order: "bgr" for image files, else that of the source."""

    def __init__(self, kind: str, labels: Array, order: str = "bgr", classes: Sequence[str] = ()) -> None:
        self.kind, self.labels, self.order, self.classes = kind, labels, order, tuple(classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Sample(self.image(index), int(self.labels[index]), self.key(index))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def image(self, index: int) -> Array:
        """Return the image, height x width x channels."""
        raise NotImplementedError

    def key(self, index: int) -> str:
        """Return the sample's name, or "" if it has none."""
        return ""

    def file(self, index: int) -> bytes | None:
        """Return the bytes of the sample's image file, or None if the sample is not a file."""
        return None

    def digest(self) -> str:
        """Return a short text that changes when samples are added, removed, renamed or relabelled."""
        return f"{self.kind}:{len(self)}:{zlib.crc32(np.ascontiguousarray(self.labels, '<i8').tobytes()):08x}"


class FileSource(SampleSource):
    """A source with one image file per sample; paths are `root` + name, concatenated without a slash as in Caffe."""

    def __init__(self, kind: str, root: str, names: Sequence[str], labels: Sequence[int], classes: Sequence[str] = (),
                 color: bool = True) -> None:  # fmt: skip
        super().__init__(kind, np.asarray(labels, np.int64), "bgr", classes)
        self.root, self.names, self.color = root, list(names), color

    def image(self, index: int) -> Array:
        return images.decode(self.file(index), self.color, self.names[index])

    def key(self, index: int) -> str:
        return self.names[index]

    def path(self, index: int) -> Path:
        """Return the path of a sample's file."""
        return Path(self.root + self.names[index])

    def file(self, index: int) -> bytes:
        try:
            return self.path(index).read_bytes()
        except OSError as error:
            raise BrokenImageError(f"{self.names[index]}: {error.strerror or error}") from error

    def digest(self) -> str:
        names = 0
        for name in self.names:
            names = zlib.crc32(os.fsencode(name) + b"\n", names)
        return f"{super().digest()}:{names:08x}"


class ArraySource(SampleSource):
    """A source with all samples in one array: N x H x W x channels, or with `planar` N x channels x H x W."""

    def __init__(self, kind: str, pixels: Array, labels: Array, planar: bool, classes: Sequence[str] = ()) -> None:
        super().__init__(kind, np.asarray(labels, np.int64), "rgb", classes)
        self.pixels, self.planar = pixels, planar

    def image(self, index: int) -> Array:
        image: Array = self.pixels[index]
        return image.transpose(1, 2, 0) if self.planar else image

    def digest(self) -> str:
        pixels = zlib.crc32(np.ascontiguousarray(self.pixels).reshape(-1).view(np.uint8).data)
        return f"{super().digest()}:{pixels:08x}"


def choose_split(parts: Mapping[str, T], split: str | None, src: Path) -> T:
    """Return the part with the name `split`, or the only part. Raises DataError if it is missing or ambiguous."""
    if split is None and len(parts) == 1:
        return next(iter(parts.values()))
    if split is None:
        raise DataError(f"{src} holds several parts, {abbreviated(sorted(parts))}: choose one with split")
    if split not in parts:
        raise DataError(f"{src} has no part {split!r}, only {abbreviated(sorted(parts))}{nearest(split, parts)}")
    return parts[split]


def folder_source(src: Path, split: str | None = None, color: bool = True) -> FileSource:
    """Return the source of a folder with one folder per class: images at any depth below it, sorted by path.

    Classes are sorted by name, or by value if all names are numbers (so "10" comes after "9").
    """
    root = choose_split(_folder_parts(src, split), split, src)
    classes = sorted(_visible_folders(root), key=_class_order(_visible_folders(root)))
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        class_images = sorted(_images_below(root, name))
        names += class_images
        labels += [label] * len(class_images)
    if not names:
        raise DataError(f"{src} holds no images in class folders, CLASS/IMAGE ({abbreviated(images.SUFFIXES)})")
    return FileSource("folder", f"{root}/", names, labels, classes, color)


def _folder_parts(src: Path, split: str | None) -> dict[str, Path]:
    """Return the folders train, val, ... if the folder is divided in this way, else {"all": the folder itself}."""
    folders = _visible_folders(src)
    divided = "train" in folders and all(name in _SPLIT_NAMES for name in folders)
    if divided and any(_visible_folders(src / name) for name in folders):
        return {name: src / name for name in folders}
    if split is not None:
        raise DataError(f"{src} is not divided into folders train, val, test: there is no part {split!r}")
    return {"all": src}


def _visible_folders(src: Path) -> list[str]:
    return [entry.name for entry in os.scandir(src) if entry.is_dir() and not entry.name.startswith(".")]


def _class_order(names: Sequence[str]) -> Callable[[str], Any]:
    return (lambda name: (int(name), name)) if all(name.isdecimal() for name in names) else str


def _images_below(root: Path, name: str) -> Iterator[str]:
    for folder, _, files in os.walk(root / name, followlinks=True):
        below = Path(folder).relative_to(root).as_posix()
        for file in files:
            if file.lower().endswith(images.SUFFIXES) and not file.startswith("."):
                yield f"{below}/{file}"


def list_source(src: Path, root: str | None = None, color: bool = True) -> FileSource:
    """Return the source of a list file as ImageDataLayer reads it: path, space, label (split at the last space).

    `root` is put before every path (root_folder). Default: paths are relative to the working folder, as in Caffe, or to
    the list's folder if the first path only exists there.
    """
    names, labels = parse_list(src)
    if root is None:
        found_beside_list = not Path(names[0]).exists() and (src.parent / names[0]).exists()
        root = f"{src.parent}/" if found_beside_list else ""
    return FileSource("list", root, names, labels, (), color)


def parse_list(src: Path) -> tuple[list[str], list[int]]:
    """Return the paths and labels of a list file. Raises DataError with the line that is not `PATH LABEL`."""
    names: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(read_lines(src), 1):
        name, _, label = line.rstrip("\r").rpartition(" ")
        if not line.strip():
            continue
        try:
            labels.append(int(label))
        except ValueError:
            raise DataError(f"{src}, line {number}: expected PATH LABEL with a whole number, found {line!r}") from None
        names.append(name)
    if not names:
        raise DataError(f"{src} lists no images")
    return names, labels


def read_lines(src: Path) -> list[str]:
    """Return the lines of a text file. Bytes that are not UTF-8 are preserved, because they may be file names."""
    try:
        return src.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n")
    except OSError as error:
        raise DataError(f"cannot read {src}: {error.strerror or error}") from error
