"""From what the command line says to predictors and samples."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from converters.common.preprocessing import Preprocessing, read_mean
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.data.augmentation import Augment
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.data_set_reader import Dataset, SourceDataset, open_dataset
from prototxt_gen.data.info import label_names
from prototxt_gen.data.source_detection import detect_kind
from prototxt_gen.data.sources import FileSource
from prototxt_gen.evaluate.image_preprocessing import CROPS, AugmentRecipe, CaffeRecipe, Recipe
from prototxt_gen.evaluate.net_data_layer import OwnData
from prototxt_gen.ir import Shape


@dataclass(frozen=True)
class Asked:
    """What is asked of the data: where they are, and how pictures are cut. Empty where the net's own layer says.

    `resize`: one number, the shorter side; two, height and width; none: picture files are fitted to the input, stored
    sets stay as they are.
    """

    data: Path | None = None
    kind: str | None = None
    split: str | None = None
    root: str | None = None
    crops: int = 1
    resize: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.crops not in CROPS:
            raise PrototxtGenError(f"crops: {' or '.join(map(str, CROPS))}, not {self.crops}")
        if len(self.resize) > 2:
            raise PrototxtGenError("resize: one number for the shorter side, or height and width")


def open_data(asked: Asked, own: OwnData | None, channels: int | None = None) -> Dataset:
    """Open the data asked for, else those of the net's own layer; `channels` decides how pictures are decoded.

    DataError where neither names any.
    """
    given = {name: value for name in ("kind", "split", "root") if (value := getattr(asked, name)) is not None}
    color = {1: False, 3: True}.get(channels or 0)
    if own is not None and own.opening.get("color") is not None:
        color = own.opening["color"]
    if asked.data is not None:
        is_stored = (asked.kind or detect_kind(asked.data)).startswith("hdf5")
        tops = {"tops": own.opening["tops"]} if own is not None and "tops" in own.opening and is_stored else {}
        return open_dataset(asked.data, color=color, **tops, **given)
    if own is None or not own.source:
        raise DataError("there are no data: the net names none for its TEST phase; give --data")
    return open_dataset(own.source, **{**own.opening, "color": color, **given})


def recipe_for(
    input_: Shape, numbers: Preprocessing, own: OwnData | None, asked: Asked, dataset: Dataset | None = None
) -> Recipe:
    """Return what is done to a picture. `dataset` None: a picture file."""
    size = (input_[1], input_[2])
    if own is not None and own.augment is not None:
        return AugmentRecipe(_with_numbers(_at_size(own.augment, size, asked.resize), numbers), asked.crops)
    if own is not None and own.mean_file and numbers.mean_image is None and not numbers.mean:
        numbers = replace(numbers, mean_image=read_mean(own.mean_file))
    numbers.check_channels(input_[0])
    shorter, exact = _resizing(size, own, asked, dataset is None or _is_files(dataset))
    swap = input_[0] == 3 and {stored_order(dataset), numbers.channel_order} == {"BGR", "RGB"}
    return CaffeRecipe(size, numbers, shorter, exact, swap, asked.crops)


def _resizing(
    size: tuple[int, int], own: OwnData | None, asked: Asked, pictures: bool
) -> tuple[int, tuple[int, int] | None]:
    """Return (shorter side, exact size); picture files that nothing is said of are made to just cover the input."""
    if asked.resize:
        return (asked.resize[0], None) if len(asked.resize) == 1 else (0, (asked.resize[0], asked.resize[1]))
    if own is not None and (own.source or own.resize):
        return 0, own.resize
    if not pictures:
        return 0, None
    return (size[0], None) if size[0] == size[1] else (0, size)


def _at_size(how: Augment, size: tuple[int, int], resize: tuple[int, ...]) -> Augment:
    """Return the recipe for another crop; the shorter side grows with it unless it is given."""
    if size[0] != size[1] and how.crop:
        raise DataError(f"augment cuts squares; the net's input is {size[0]}x{size[1]}")
    crop = size[0] if how.crop else 0
    shorter = resize[0] if resize else round(how.test_shorter * crop / how.crop) if crop else how.test_shorter
    return replace(how, crop=crop, test_shorter=shorter)


def _with_numbers(how: Augment, numbers: Preprocessing) -> Augment:
    """Return the recipe with the mean and scale that options give."""
    if numbers.mean_image is not None:
        raise DataError("augment takes off a mean per channel, no mean image")
    scale = (numbers.scale,) if numbers.scale != 1 else how.scale
    return replace(how, mean=numbers.mean or how.mean, scale=scale)


def _is_files(dataset: Dataset) -> bool:
    return isinstance(dataset, SourceDataset) and isinstance(dataset.source, FileSource)


def stored_order(dataset: Dataset | None) -> str:
    """Return the order of a data set's channels, BGR or RGB; empty where nothing tells. Picture files are BGR."""
    if dataset is None:
        return "BGR"
    if isinstance(dataset, SourceDataset):
        return dataset.source.order.upper()
    account = (dataset.path if dataset.path.is_dir() else dataset.path.parent) / "dataset.json"
    try:
        return str(json.loads(account.read_text())["channel_order"]).upper()
    except (OSError, ValueError, KeyError):
        return ""


def class_names(dataset: Dataset | None, labels: Path | None = None) -> tuple[str, ...]:
    """Return names of the classes by label: a file's lines, else what the data set knows; none where nothing does.

    A line of ImageNet's synset_words.txt loses its number (`n01440764 tench`).
    """
    if labels is not None:
        try:
            lines = labels.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise DataError(f"{labels}: {error.strerror or error}") from error
        return tuple(_without_synset(line.strip()) for line in lines if line.strip())
    return label_names(dataset) if dataset is not None else ()


def _without_synset(line: str) -> str:
    first, _, rest = line.partition(" ")
    return rest if rest and len(first) == 9 and first[0] == "n" and first[1:].isdigit() else line
