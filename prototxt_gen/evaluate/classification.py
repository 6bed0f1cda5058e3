"""Classification of single image files: classes with probabilities, and the attention masks of the net."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from converters.common.net_with_weights import NetWithWeights
from prototxt_gen.common.optional_packages import need
from prototxt_gen.data import images
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.evaluate.attention_maps import Mask, MaskedImage, find_mask_values, masks_of_image
from prototxt_gen.evaluate.image_preprocessing import ImagePreprocessor
from prototxt_gen.evaluate.predictors import image_input, make_predictor

if TYPE_CHECKING:
    pass

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Classification:
    """The result of one image file.

    `picture` is the centre crop that the net gets, H×W×C, uint8, BGR. `scores` are the probabilities, one per class;
    `names` the names of the classes.
    """

    path: Path
    picture: Array
    scores: Array
    names: Sequence[str] = ()
    masks: Sequence[Mask] = ()

    def top_classes(self, count: int) -> list[tuple[str, float]]:
        """Return the names and probabilities of the `count` most probable classes, the most probable first."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        return [(self.class_name(int(label)), float(self.scores[label])) for label in order]

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number if it has no name."""
        return self.names[label] if label < len(self.names) else str(label)

    def as_masked_image(self, top: int) -> MaskedImage:
        """Return the image with its masks, with the `top` most probable classes in the caption."""
        caption = ", ".join(f"{name} {probability:.1%}" for name, probability in self.top_classes(top))
        return MaskedImage(self.path.name, caption, self.picture, self.masks)

    def as_data(self, top: int) -> dict[str, Any]:
        """Return the result as a dict for JSON, with the `top` most probable classes."""
        order = [int(label) for label in np.argsort(-self.scores, kind="stable")[:top]]
        classes = [{"label": x, "name": self.class_name(x), "probability": float(self.scores[x])} for x in order]
        masks = [{"blob": mask.blob, "mean": float(mask.values.mean())} for mask in self.masks]
        return {"picture": str(self.path), "classes": classes, "masks": masks}


def classify(
    caffe_model: NetWithWeights,
    preprocessor: ImagePreprocessor,
    paths: Iterable[Path],
    names: Sequence[str] = (),
    backend: str = "torch",
    output: str = "",
    pattern: str = "",
) -> list[Classification]:
    """Classify image files and return the results; scores are the mean over the crops.

    `names` are the class names, `backend` is one of `predictors.BACKENDS`, and `output` is the name of the output blob
    (default: the last). `pattern` selects the mask blobs (see `attention_maps.MASK_PATTERN`); without it no masks are
    computed. Masks are computed in PyTorch, for the centre crop.
    """
    color = caffe_model.analysis.shapes[image_input(caffe_model)][1] == 3
    predict = make_predictor(backend, caffe_model, output)
    results = []
    try:
        for path in paths:
            image = images.to_chw(images.decode(_read_bytes(path), color, str(path)))
            views = preprocessor.views(image)
            masks = compute_masks(caffe_model, views[:1], pattern)[0] if pattern else []
            scores = predict(views).mean(axis=0)
            results.append(Classification(path, preprocessor.centre_image(image), scores, names, masks))
    finally:
        predict.close()
    return results


def compute_masks(caffe_model: NetWithWeights, batch: Array, pattern: str) -> list[list[Mask]]:
    """Return the masks of each image of a batch N×C×H×W, computed in PyTorch."""
    need("torch")
    import torch

    from prototxt_gen.runtime.torch_net import TorchNet

    values = find_mask_values(caffe_model.net, pattern)
    net = TorchNet(caffe_model.analysis, caffe_model.weights).eval()
    with torch.inference_mode():
        tensors = net.forward_blobs([torch.from_numpy(np.ascontiguousarray(batch))], tuple(values))
    blobs = {value.blob: tensor.numpy() for value, tensor in zip(values, tensors, strict=True)}
    return [masks_of_image(blobs, index) for index in range(len(batch))]


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
