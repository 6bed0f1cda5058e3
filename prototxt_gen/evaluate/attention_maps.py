"""Where a net looks: its attention masks drawn over the picture, module by module, as PNG or HTML.

A mask is a blob N×C×h×w of numbers from 0 to 1, by which the trunk's features are weighed. Drawn are its mean over the
channels, and the channels that vary most over the picture; colours go from the least to the largest value in each.
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

PATTERN = "*/mask"
"""Names of the blobs that are masks in the nets made here; `*` stands for anything, slashes too."""
CHANNELS = 3
"""How many single channels are drawn of each mask."""
TILE = 224
_STRENGTH = 0.6
"""How much of an overlay is the mask's colour."""


@dataclass(frozen=True)
class Mask:
    """One module's mask for one picture: C×h×w."""

    blob: str
    values: Array

    @property
    def module(self) -> str:
        """The name without its last part: `AttentionA_1` for `AttentionA_1/mask`."""
        return self.blob.rpartition("/")[0] or self.blob

    def mean(self) -> Array:
        """Return h×w, the mean over the channels."""
        return np.asarray(self.values.mean(axis=0))

    def liveliest(self, count: int = CHANNELS) -> list[int]:
        """Return the channels that vary most over the picture, the first most of all."""
        spread = self.values.reshape(len(self.values), -1).std(axis=1)
        return [int(channel) for channel in np.argsort(-spread, kind="stable")[:count]]


@dataclass(frozen=True)
class Seen:
    """A picture H×W×C (uint8, BGR) as a net saw it, what it was taken for, and the masks."""

    title: str
    caption: str
    picture: Array
    masks: Sequence[Mask]


@dataclass(frozen=True)
class Tile:
    """One drawing: H×W×3, uint8, BGR."""

    title: str
    image: Array

    @property
    def uri(self) -> str:
        """The drawing as a PNG inside a page."""
        return "data:image/png;base64," + base64.b64encode(images.encode(self.image, "png")).decode()


def mask_values(net: Net, pattern: str = PATTERN) -> list[Value]:
    """Return the last values of the blobs that are masks; NetError where none has such a name."""
    last = {value.blob: value for value in net.values()}
    found = [value for blob, value in last.items() if fnmatchcase(blob, pattern)]
    if not found:
        raise NetError(f"{net.name}: no blob is named {pattern!r}{nearest(pattern, last)}; --mask-blobs names others")
    return found


def masks_of(blobs: Mapping[str, Array], index: int = 0) -> list[Mask]:
    """Return the masks of picture number `index`; NetError where a blob is no N×C×h×w."""
    for name, blob in blobs.items():
        if blob.ndim != 4:
            raise NetError(f"blob {name!r} is {show(blob.shape)}; a mask is N×C×h×w")
    return [Mask(name, blob[index]) for name, blob in blobs.items()]


def shown(picture: Array, side: int = TILE) -> Array:
    """Return a picture of either channel count as colour, enlarged to `side` if it is smaller, its pixels visible."""
    cv2 = images.opencv()
    colour = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    height, width = colour.shape[:2]
    factor = max(1, side // max(height, width))
    return np.ascontiguousarray(cv2.resize(colour, (width * factor, height * factor), interpolation=cv2.INTER_NEAREST))


def overlay(picture: Array, field: Array) -> Array:
    """Return a picture H×W×3 under a field h×w: dark where it is least, bright where it is largest."""
    cv2 = images.opencv()
    low, high = float(field.min()), float(field.max())
    bytes_ = np.rint(255 * (field - low) / (high - low)) if high > low else np.full(field.shape, 127.0)
    height, width = picture.shape[:2]
    smooth = cv2.resize(bytes_.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    grey = images.to_gray(picture, "bgr").astype(np.float32)
    mixed = _STRENGTH * cv2.applyColorMap(smooth, cv2.COLORMAP_INFERNO) + (1 - _STRENGTH) * grey
    return np.asarray(np.rint(mixed).clip(0, 255), np.uint8)


def tiles(picture: Array, mask: Mask, channels: int = CHANNELS) -> list[Tile]:
    """Return a mask's drawings over a picture: the mean, then single channels."""
    large, mean = shown(picture), mask.mean()
    made = [Tile(f"mean of {len(mask.values)}, {mean.min():.2f} to {mean.max():.2f}", overlay(large, mean))]
    for channel in mask.liveliest(channels):
        field = mask.values[channel]
        made.append(Tile(f"channel {channel}, {field.min():.2f} to {field.max():.2f}", overlay(large, field)))
    return made


def write(target: Path, seen: Sequence[Seen], force: bool = False) -> list[Path]:
    """Write the drawings: one .html, one .png, or a folder with a PNG for each picture and module; return the files."""
    kind = target.suffix.lower()
    if kind == ".html":
        files.write_text(target, html_text(seen), force)
        return [target]
    if kind == ".png":
        with files.replacing(target, force) as temporary:
            _sheet(seen).savefig(temporary, format="png", dpi=100)
        return [target]
    if kind:
        raise PrototxtGenError(f"{target}: the name must end in .html or .png, or be a folder's")
    return _write_folder(target, seen, force)


def _write_folder(folder: Path, seen: Sequence[Seen], force: bool) -> list[Path]:
    named = {folder / name: image for one in seen for name, image in _pictures(one)}
    files.refuse_overwriting(list(named), force)
    for path, image in named.items():
        with files.replacing(path) as temporary:
            temporary.write_bytes(images.encode(image, "png"))
    return list(named)


def _pictures(one: Seen) -> Iterable[tuple[str, Array]]:
    stem = Path(one.title).stem
    yield f"{stem}.png", shown(one.picture)
    for mask in one.masks:
        drawn = [tile.image for tile in tiles(one.picture, mask)]
        yield f"{stem}_{mask.module.replace('/', '_')}.png", np.concatenate([shown(one.picture), *drawn], axis=1)


def html_text(seen: Sequence[Seen]) -> str:
    """Return a page that needs nothing beside itself."""
    blocks = [
        {
            "title": safe(one.title),
            "caption": safe(one.caption),
            "picture": Tile("", shown(one.picture)),
            "modules": [
                {"name": safe(mask.module), "shape": show(mask.values.shape), "tiles": tiles(one.picture, mask)}
                for mask in one.masks
            ],
        }
        for one in seen
    ]
    return render("masks.html.j2", blocks=blocks)


def _sheet(seen: Sequence[Seen]) -> Any:
    """Return a figure with a row for each module of each picture."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise missing("matplotlib") from None
    rows = [(one, mask, index) for one in seen for index, mask in enumerate(one.masks)]
    figure = Figure(figsize=(2.3 * (CHANNELS + 2), 2.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), CHANNELS + 2, squeeze=False)
    for axes, (one, mask, index) in zip(grid, rows, strict=True):
        for each in axes:
            each.axis("off")
        if not index:
            _panel(axes[0], Tile(f"{one.title}\n{one.caption}", shown(one.picture)))
        drawn = tiles(one.picture, mask)
        _panel(axes[1], Tile(f"{mask.module}\n{drawn[0].title}", drawn[0].image))
        for each, tile in zip(axes[2:], drawn[1:], strict=False):
            _panel(each, tile)
    return figure


def _panel(axes: Axes, tile: Tile) -> None:
    axes.imshow(tile.image[..., ::-1])
    axes.set_title(safe_lines(tile.title).replace("$", r"\$"), fontsize=8)
