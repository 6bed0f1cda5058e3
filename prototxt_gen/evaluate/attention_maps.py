"""Attention masks drawn over an image, one attention module after another, as PNG or HTML.

A mask is a blob N×C×h×w of values from 0 to 1, which the trunk's features are multiplied by. Its mean over the channels
is drawn, and the channels that vary most over the image. The colours range from the smallest to the largest value.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.common import files
from prototxt_gen.common.errors import NetError, PrototxtGenError, nearest
from prototxt_gen.common.optional_packages import missing
from prototxt_gen.common.printable import safe, safe_lines
from prototxt_gen.data import images
from prototxt_gen.ir import Net, Value, show
from prototxt_gen.net.render import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[Any]

MASK_PATTERN = "*/mask"
"""Pattern of the names of mask blobs in the nets of the zoo; `*` matches any characters, slashes too."""
SINGLE_CHANNELS = 3
"""Number of single channels drawn of each mask."""
TILE_SIDE = 224
_COLOUR_SHARE = 0.6
"""Share of the mask's colour in an overlay; the rest is the image in grey."""


@dataclass(frozen=True)
class Mask:
    """The mask of one attention module for one image. `values` has shape C×h×w."""

    blob: str
    values: Array

    @property
    def module(self) -> str:
        """The blob's name without its last part: `AttentionA_1` for `AttentionA_1/mask`."""
        return self.blob.rpartition("/")[0] or self.blob

    def mean(self) -> Array:
        """Return the mean over the channels, of shape h×w."""
        return np.asarray(self.values.mean(axis=0))

    def most_varying_channels(self, count: int = SINGLE_CHANNELS) -> list[int]:
        """Return the indices of the channels with the largest standard deviation over the image, the largest first."""
        spread = self.values.reshape(len(self.values), -1).std(axis=1)
        return [int(channel) for channel in np.argsort(-spread, kind="stable")[:count]]


@dataclass(frozen=True)
class MaskedImage:
    """An image H×W×C (uint8, BGR), as cropped for the net, with its attention masks. `caption` has the best classes."""

    title: str
    caption: str
    picture: Array
    masks: Sequence[Mask]


@dataclass(frozen=True)
class ImageTile:
    """One titled image of a page or sheet. `image` is H×W×3, uint8, BGR."""

    title: str
    image: Array

    @property
    def uri(self) -> str:
        """The image as a PNG in a data: URI, for an HTML page."""
        return "data:image/png;base64," + base64.b64encode(images.encode(self.image, "png")).decode()


def find_mask_values(net: Net, pattern: str = MASK_PATTERN) -> list[Value]:
    """Return the last value of each blob whose name matches the pattern. Raises NetError if there is none."""
    last = {value.blob: value for value in net.values()}
    found = [value for blob, value in last.items() if fnmatchcase(blob, pattern)]
    if not found:
        raise NetError(
            f"{net.name}: no blob name matches {pattern!r}{nearest(pattern, last)}; choose others with --mask-blobs"
        )
    return found


def masks_of_image(blobs: Mapping[str, Array], index: int = 0) -> list[Mask]:
    """Return the masks of image number `index` of a batch. Raises NetError unless each blob is N×C×h×w."""
    for name, blob in blobs.items():
        if blob.ndim != 4:
            raise NetError(f"blob {name!r} is {show(blob.shape)}; a mask must be N×C×h×w")
    return [Mask(name, blob[index]) for name, blob in blobs.items()]


def enlarged_colour(picture: Array, side: int = TILE_SIDE) -> Array:
    """Return an image H×W×1 or H×W×3 in colour, enlarged by a whole factor to at most `side`, without smoothing."""
    cv2 = images.opencv()
    colour = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    height, width = colour.shape[:2]
    factor = max(1, side // max(height, width))
    return np.ascontiguousarray(cv2.resize(colour, (width * factor, height * factor), interpolation=cv2.INTER_NEAREST))


def overlay(picture: Array, field: Array) -> Array:
    """Return an image H×W×3 with the values h×w over it in colours: dark for the smallest, bright for the largest."""
    cv2 = images.opencv()
    low, high = float(field.min()), float(field.max())
    bytes_ = np.rint(255 * (field - low) / (high - low)) if high > low else np.full(field.shape, 127.0)
    height, width = picture.shape[:2]
    smooth = cv2.resize(bytes_.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    grey = images.to_gray(picture, "bgr").astype(np.float32)
    mixed = _COLOUR_SHARE * cv2.applyColorMap(smooth, cv2.COLORMAP_INFERNO) + (1 - _COLOUR_SHARE) * grey
    return np.asarray(np.rint(mixed).clip(0, 255), np.uint8)


def mask_tiles(picture: Array, mask: Mask, channels: int = SINGLE_CHANNELS) -> list[ImageTile]:
    """Return tiles of a mask over an image: its mean, then single channels."""
    large, mean = enlarged_colour(picture), mask.mean()
    made = [ImageTile(f"mean of {len(mask.values)}, {mean.min():.2f} to {mean.max():.2f}", overlay(large, mean))]
    for channel in mask.most_varying_channels(channels):
        field = mask.values[channel]
        made.append(ImageTile(f"channel {channel}, {field.min():.2f} to {field.max():.2f}", overlay(large, field)))
    return made


def write_masks(target: Path, seen: Sequence[MaskedImage], force: bool = False) -> list[Path]:
    """Write the images with their masks and return the files.

    `target` is an .html file, a .png file, or a folder, which gets a PNG for each image and each attention module.
    Raises PrototxtGenError if a file exists and `force` is not set, or for another file extension.
    """
    kind = target.suffix.lower()
    if kind == ".html":
        files.write_text(target, html_text(seen), force)
        return [target]
    if kind == ".png":
        with files.replacing(target, force) as temporary:
            _figure(seen).savefig(temporary, format="png", dpi=100)
        return [target]
    if kind or files.is_written_directly(target):
        raise PrototxtGenError(f"{target}: the name must end in .html or .png, or have no extension (a folder)")
    return _write_folder(target, seen, force)


def _write_folder(folder: Path, seen: Sequence[MaskedImage], force: bool) -> list[Path]:
    named = {folder / name: image for one in seen for name, image in _png_files(one)}
    files.refuse_overwriting(list(named), force)
    for path, image in named.items():
        with files.replacing(path) as temporary:
            temporary.write_bytes(images.encode(image, "png"))
    return list(named)


def _png_files(one: MaskedImage) -> Iterable[tuple[str, Array]]:
    stem = Path(one.title).stem
    yield f"{stem}.png", enlarged_colour(one.picture)
    for mask in one.masks:
        drawn = [tile.image for tile in mask_tiles(one.picture, mask)]
        yield (
            f"{stem}_{mask.module.replace('/', '_')}.png",
            np.concatenate([enlarged_colour(one.picture), *drawn], axis=1),
        )


def html_text(seen: Sequence[MaskedImage]) -> str:
    """Return an HTML page that needs no other files."""
    blocks = [
        {
            "title": safe(one.title),
            "caption": safe(one.caption),
            "picture": ImageTile("", enlarged_colour(one.picture)),
            "modules": [
                {"name": safe(mask.module), "shape": show(mask.values.shape), "tiles": mask_tiles(one.picture, mask)}
                for mask in one.masks
            ],
        }
        for one in seen
    ]
    return render("masks.html.j2", blocks=blocks)


def _figure(seen: Sequence[MaskedImage]) -> Any:
    """Return a Matplotlib figure with a row for each attention module of each image."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise missing("matplotlib") from None
    rows = [(one, mask, index) for one in seen for index, mask in enumerate(one.masks)]
    figure = Figure(figsize=(2.3 * (SINGLE_CHANNELS + 2), 2.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), SINGLE_CHANNELS + 2, squeeze=False)
    for axes, (one, mask, index) in zip(grid, rows, strict=True):
        for each in axes:
            each.axis("off")
        if not index:
            _draw_panel(axes[0], ImageTile(f"{one.title}\n{one.caption}", enlarged_colour(one.picture)))
        drawn = mask_tiles(one.picture, mask)
        _draw_panel(axes[1], ImageTile(f"{mask.module}\n{drawn[0].title}", drawn[0].image))
        for each, tile in zip(axes[2:], drawn[1:], strict=False):
            _draw_panel(each, tile)
    return figure


def _draw_panel(axes: Axes, tile: ImageTile) -> None:
    axes.imshow(tile.image[..., ::-1])
    axes.set_title(safe_lines(tile.title).replace("$", r"\$"), fontsize=8)
