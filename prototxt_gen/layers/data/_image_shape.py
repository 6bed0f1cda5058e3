"""The top shape of image data layers, as far as the prototxt specifies it; the rest is known only from the data set."""

from __future__ import annotations

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape
from prototxt_gen.schema.caffe_proto import TransformationParameter


def unknown_shape_error(layer: Layer, what: str) -> UnsupportedError:
    """Return the error of a data layer whose prototxt does not specify `what`."""
    return UnsupportedError(
        f"layer {layer.name!r} ({layer.type}): {what} not specified by the prototxt; "
        "give it with --input-size or --shape"
    )


def check_batch_size(layer: Layer, batch: int) -> None:
    """Raise NetError if the batch size is less than 1."""
    if batch < 1:
        raise layer.error("it needs a batch_size of at least 1")


def image_shape(layer: Layer, batch: int, channels: int = 0, height: int = 0, width: int = 0) -> Shape:
    """Return N×C×H×W of a data layer, given the size of its images before transform_param; 0 means unknown.

    Raises UnsupportedError if C, H or W remains unknown. Source: src/caffe/data_transformer.cpp
    DataTransformer::InferBlobShape; for resize_param, crop_h and crop_w that of weiliu89/caffe, branch ssd.
    """
    check_batch_size(layer, batch)
    _check_transform(layer)
    height, width = _resized(layer, height, width)
    height, width = _cropped(layer, height, width)
    channels = _channels(layer, channels)
    if not channels:
        raise unknown_shape_error(layer, "the number of channels of its images is")
    if not (height and width):
        raise unknown_shape_error(layer, "the size of its images is")
    return (batch, channels, height, width)


def _check_transform(layer: Layer) -> None:
    p = layer.get(TransformationParameter)
    if p.has("mean_file") and p.mean_value:
        raise layer.error("transform_param has both mean_file and mean_value; only one is allowed")
    if p.force_color and p.force_gray:
        raise layer.error("transform_param has both force_color and force_gray; only one is allowed")
    if p.has("expand_param") and p.expand_param.max_expand_ratio <= 1:
        raise layer.error("max_expand_ratio must be greater than 1")


def _channels(layer: Layer, channels: int) -> int:
    """Return the number of channels; 0 if it is unknown. Several mean values are one for each channel."""
    p = layer.get(TransformationParameter)
    forced = channels or (3 if p.force_color else 1 if p.force_gray else 0)
    means = len(p.mean_value)
    if means > 1 and forced not in (0, means):
        raise layer.error(f"transform_param has {means} mean values for images of {forced} channels")
    return forced or (means if means > 1 else 0)


def _resized(layer: Layer, height: int, width: int) -> tuple[int, int]:
    """Return height and width after resize_param; 0 means unknown.

    Source: weiliu89/caffe (branch ssd) src/caffe/util/im_transforms.cpp InferNewSize.
    """
    p = layer.get(TransformationParameter)
    if not p.has("resize_param"):
        return height, width
    resize = p.resize_param
    if resize.height < 1 or resize.width < 1:
        raise layer.error("resize_param needs a height and a width of at least 1")
    if resize.resize_mode == "FIT_SMALL_SIZE":
        return 0, 0  # each image keeps its aspect ratio
    return resize.height, resize.width


def _cropped(layer: Layer, height: int, width: int) -> tuple[int, int]:
    """Return height and width after cropping; 0 means unknown. Raises NetError if the crop is larger than the image."""
    p = layer.get(TransformationParameter)
    crop_h, crop_w = (p.crop_size, p.crop_size) if p.crop_size else (p.crop_h, p.crop_w)
    for crop, size in ((crop_h, height), (crop_w, width)):
        if size and crop > size:
            raise layer.error(f"the crop of {crop} pixels is larger than the image, {size} pixels")
    return crop_h or height, crop_w or width
