"""Data set, preprocessing and class names for an evaluation, from the options of the command line and the net."""

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
from prototxt_gen.evaluate.image_preprocessing import CROPS, AugmentPreprocessor, CaffePreprocessor, ImagePreprocessor
from prototxt_gen.evaluate.net_data_layer import NetDataLayer
from prototxt_gen.ir import Shape


@dataclass(frozen=True)
class EvalDataOptions:
    """Options for the data of an evaluation; what is not set comes from the net's data layer.

    `data` is the path of the data set; for `kind`, `split` and `root` see `open_dataset`. `crops` is 1 or 10. `resize`
    is the shorter side, or height and width, in pixels. Default of `resize`: image files are resized to cover the
    input, images of data sets are not resized. Raises PrototxtGenError for other values.
    """

    data: Path | None = None
    kind: str | None = None
    split: str | None = None
    root: str | None = None
    crops: int = 1
    resize: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.crops not in CROPS:
            raise PrototxtGenError(f"crops must be {' or '.join(map(str, CROPS))}, not {self.crops}")
        if len(self.resize) > 2:
            raise PrototxtGenError("resize must be one number (the shorter side) or two (height and width)")


def open_eval_dataset(
    options: EvalDataOptions, data_layer: NetDataLayer | None, channels: int | None = None
) -> Dataset:
    """Open the data set of the options, or else that of the net's data layer.

    `channels` (1 or 3) determines whether images are decoded in grey or colour. Raises DataError if there is no data.
    """
    given = {name: value for name in ("kind", "split", "root") if (value := getattr(options, name)) is not None}
    color = {1: False, 3: True}.get(channels or 0)
    if data_layer is not None and data_layer.open_options.get("color") is not None:
        color = data_layer.open_options["color"]
    if options.data is not None:
        is_stored = (options.kind or detect_kind(options.data)).startswith("hdf5")
        tops = (
            {"tops": data_layer.open_options["tops"]}
            if data_layer is not None and "tops" in data_layer.open_options and is_stored
            else {}
        )
        return open_dataset(options.data, color=color, **tops, **given)
    if data_layer is None or not data_layer.source:
        raise DataError("there is no data: the net names none for its TEST phase; give --data")
    return open_dataset(data_layer.source, **{**data_layer.open_options, "color": color, **given})


def image_preprocessor(
    input_: Shape,
    preprocessing: Preprocessing,
    data_layer: NetDataLayer | None,
    options: EvalDataOptions,
    dataset: Dataset | None = None,
) -> ImagePreprocessor:
    """Return the preprocessor of the images of a data set, or of image files if `dataset` is None.

    `input_` is the net's input C×H×W. `preprocessing` (mean, scale, channel order) overrules the data layer's.
    """
    size = (input_[1], input_[2])
    if data_layer is not None and data_layer.augment is not None:
        return AugmentPreprocessor(
            _with_mean_and_scale(_with_crop_size(data_layer.augment, size, options.resize), preprocessing),
            options.crops,
        )
    if data_layer is not None and data_layer.mean_file and preprocessing.mean_image is None and not preprocessing.mean:
        preprocessing = replace(preprocessing, mean_image=read_mean(data_layer.mean_file))
    preprocessing.check_channels(input_[0])
    are_image_files = dataset is None or _reads_image_files(dataset)
    shorter, exact = _resizing(size, data_layer, options, are_image_files, preprocessing.resize)
    swap = input_[0] == 3 and {stored_channel_order(dataset), preprocessing.channel_order} == {"BGR", "RGB"}
    return CaffePreprocessor(size, preprocessing, shorter, exact, swap, options.crops)


def _resizing(
    size: tuple[int, int],
    data_layer: NetDataLayer | None,
    options: EvalDataOptions,
    are_image_files: bool,
    stored_resize: tuple[int, ...] = (),
) -> tuple[int, tuple[int, int] | None]:
    """Return (shorter side, exact size), of which at most one is set.

    Default for image files: the size in the preprocessing of the model, if the input fits into it, else they cover the
    input.
    """
    if options.resize:
        return (options.resize[0], None) if len(options.resize) == 1 else (0, (options.resize[0], options.resize[1]))
    if data_layer is not None and (data_layer.source or data_layer.resize):
        return 0, data_layer.resize
    if not are_image_files:
        return 0, None
    if len(stored_resize) == 2 and stored_resize[0] >= size[0] and stored_resize[1] >= size[1]:
        return 0, (stored_resize[0], stored_resize[1])
    return (size[0], None) if size[0] == size[1] else (0, size)


def _with_crop_size(how: Augment, size: tuple[int, int], resize: tuple[int, ...]) -> Augment:
    """Return the augmentation with the net's input size as crop; the shorter side is scaled too, unless given."""
    if size[0] != size[1] and how.crop:
        raise DataError(f"the data layer crops squares, but the net's input is {size[0]}x{size[1]}")
    crop = size[0] if how.crop else 0
    shorter = resize[0] if resize else round(how.test_shorter * crop / how.crop) if crop else how.test_shorter
    return replace(how, crop=crop, test_shorter=shorter)


def _with_mean_and_scale(how: Augment, preprocessing: Preprocessing) -> Augment:
    """Return the augmentation with the mean and scale of the options, if given."""
    if preprocessing.mean_image is not None:
        raise DataError("the data layer subtracts a mean per channel, so a mean image cannot be used")
    scale = (preprocessing.scale,) if preprocessing.scale != 1 else how.scale
    return replace(how, mean=preprocessing.mean or how.mean, scale=scale)


def _reads_image_files(dataset: Dataset) -> bool:
    return isinstance(dataset, SourceDataset) and isinstance(dataset.source, FileSource)


def stored_channel_order(dataset: Dataset | None) -> str:
    """Return the channel order of a data set, BGR or RGB, or "" if unknown. Decoded image files are BGR."""
    if dataset is None:
        return "BGR"
    if isinstance(dataset, SourceDataset):
        return dataset.source.order.upper()
    description = (dataset.path if dataset.path.is_dir() else dataset.path.parent) / "dataset.json"
    try:
        return str(json.loads(description.read_text())["channel_order"]).upper()
    except (OSError, ValueError, KeyError):
        return ""


def class_names(dataset: Dataset | None, labels: Path | None = None) -> tuple[str, ...]:
    """Return the class names by label, from the lines of the file `labels`, else from the data set; may be empty.

    The WordNet numbers of ImageNet's synset_words.txt (`n01440764 tench`) are removed. Raises DataError if the file
    cannot be read.
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
