"""Single pictures: their classes with probabilities, and the masks of the net's attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.common.optional_packages import need
from prototxt_gen.data import images
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.evaluate.attention_maps import Mask, Seen, mask_values, masks_of
from prototxt_gen.evaluate.image_preprocessing import Recipe
from prototxt_gen.evaluate.predictors import image_input, predictor

if TYPE_CHECKING:
    from converters.common.net_with_weights import NetWithWeights

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sight:
    """What a net sees in one picture. `picture` is the part it looked at, H×W×C, uint8; `scores` one for each class."""

    path: Path
    picture: Array
    scores: Array
    names: Sequence[str] = ()
    masks: Sequence[Mask] = ()

    def best(self, count: int) -> list[tuple[str, float]]:
        """Return the names and probabilities of the best classes, the best first."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        return [(self.name(int(label)), float(self.scores[label])) for label in order]

    def name(self, label: int) -> str:
        """Return a class's name, its number where it has none."""
        return self.names[label] if label < len(self.names) else str(label)

    def drawn(self, top: int) -> Seen:
        """Return what is drawn of it, captioned by its best classes."""
        caption = ", ".join(f"{name} {probability:.1%}" for name, probability in self.best(top))
        return Seen(self.path.name, caption, self.picture, self.masks)

    def as_data(self, top: int) -> dict[str, Any]:
        """Return it as plain data."""
        order = [int(label) for label in np.argsort(-self.scores, kind="stable")[:top]]
        classes = [{"label": x, "name": self.name(x), "probability": float(self.scores[x])} for x in order]
        masks = [{"blob": mask.blob, "mean": float(mask.values.mean())} for mask in self.masks]
        return {"picture": str(self.path), "classes": classes, "masks": masks}


def classify(
    subject: NetWithWeights,
    recipe: Recipe,
    paths: Iterable[Path],
    names: Sequence[str] = (),
    backend: str = "torch",
    output: str = "",
    pattern: str = "",
) -> list[Sight]:
    """Classify picture files; scores are the mean over the recipe's crops.

    `pattern` names the blobs that are masks, see `masks.PATTERN`; none are taken without. They are PyTorch's, of the
    middle crop.
    """
    color = subject.analysis.shapes[image_input(subject)][1] == 3
    predict = predictor(backend, subject, output)
    seen = []
    try:
        for path in paths:
            picture = images.to_chw(images.decode(_bytes(path), color, str(path)))
            views = recipe.views(picture)
            masks = masks_in(subject, views[:1], pattern)[0] if pattern else []
            seen.append(Sight(path, recipe.pixels(picture), predict(views).mean(axis=0), names, masks))
    finally:
        predict.close()
    return seen


def masks_in(subject: NetWithWeights, batch: Array, pattern: str) -> list[list[Mask]]:
    """Return the masks for each image of a batch N×C×H×W."""
    need("torch")
    import torch

    from prototxt_gen.runtime.torch_net import TorchNet

    values = mask_values(subject.net, pattern)
    net = TorchNet(subject.analysis, subject.weights).eval()
    with torch.inference_mode():
        found = net.forward_blobs([torch.from_numpy(np.ascontiguousarray(batch))], tuple(values))
    blobs = {value.blob: blob.numpy() for value, blob in zip(values, found, strict=True)}
    return [masks_of(blobs, index) for index in range(len(batch))]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
