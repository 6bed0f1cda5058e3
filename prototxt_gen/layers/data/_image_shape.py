"""The shape of images as data layers hand them on: what of it the prototxt tells, and what only their source does."""

from __future__ import annotations

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.schema.caffe_proto import TransformationParameter


def unknown(layer: Layer, what: str) -> UnsupportedError:
    """Return the error of a data layer that says too little."""
    return UnsupportedError(
        f"layer {layer.name!r} ({layer.type}): {what} known to its source of data alone, not to the prototxt; "
        "give it with --input-size or --shape"
    )


def need_batch(layer: Layer, batch: int) -> None:
    """Raise an error where the batch is empty."""
    if batch < 1:
        raise layer.error("it needs batch_size, at least 1")


def image_shape(layer: Layer, batch: int, channels: int = 0, height: int = 0, width: int = 0) -> Shape:
    """Return N×C×H×W of a data layer whose images are channels×height×width before transform_param; 0 is not known.

    Source: src/caffe/data_transformer.cpp DataTransformer::InferBlobShape; for resize_param and crop_h, crop_w that of
    weiliu89/caffe, branch ssd.
    """
    need_batch(layer, batch)
    _check_transform(layer)
    height, width = _resized(layer, height, width)
    height, width = _cropped(layer, height, width)
    channels = _channels(layer, channels)
    if not channels:
        raise unknown(layer, "the number of channels of its images is")
    if not (height and width):
        raise unknown(layer, "the size of its images is")
    return (batch, channels, height, width)


def _check_transform(layer: Layer) -> None:
    p = layer.get(TransformationParameter)
    if p.has("mean_file") and p.mean_value:
        raise layer.error("transform_param has mean_file and mean_value; it takes one of them")
    if p.force_color and p.force_gray:
        raise layer.error("transform_param has force_color and force_gray; it takes one of them")
    if p.has("expand_param") and p.expand_param.max_expand_ratio <= 1:
        raise layer.error("max_expand_ratio must be more than 1")


def _channels(layer: Layer, channels: int) -> int:
    """Several mean values are one for each channel; a single one serves any number."""
    p = layer.get(TransformationParameter)
    forced = channels or (3 if p.force_color else 1 if p.force_gray else 0)
    means = len(p.mean_value)
    if means > 1 and forced not in (0, means):
        raise layer.error(f"transform_param has {means} mean values for images of {forced} channels")
    return forced or (means if means > 1 else 0)


def _resized(layer: Layer, height: int, width: int) -> tuple[int, int]:
    """Source: weiliu89/caffe (branch ssd) src/caffe/util/im_transforms.cpp InferNewSize."""
    p = layer.get(TransformationParameter)
    if not p.has("resize_param"):
        return height, width
    resize = p.resize_param
    if resize.height < 1 or resize.width < 1:
        raise layer.error("resize_param needs height and width, at least 1")
    if resize.resize_mode == "FIT_SMALL_SIZE":
        return 0, 0  # each image keeps its aspect
    return resize.height, resize.width


def _cropped(layer: Layer, height: int, width: int) -> tuple[int, int]:
    p = layer.get(TransformationParameter)
    crop_h, crop_w = (p.crop_size, p.crop_size) if p.crop_size else (p.crop_h, p.crop_w)
    for crop, size in ((crop_h, height), (crop_w, width)):
        if size and crop > size:
            raise layer.error(f"it crops {crop} pixels out of {size}")
    return crop_h or height, crop_w or width
