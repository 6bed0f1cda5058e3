"""Shapes of data layers: those that the prototxt specifies, and errors for the others."""

from __future__ import annotations

import pytest

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.layers.example import Example
from tests import golden

MEANS = "mean_value: 104 mean_value: 117 mean_value: 123"
CROPPED = f"transform_param {{ crop_size: 224 {MEANS} }}"
RESIZED = "transform_param { force_color: true resize_param { height: 300 width: 400 } }"
DATA = "data_param { batch_size: 8 }"
IMAGES = "image_data_param { batch_size: 8 new_height: 256 new_width: 320"

KNOWN = [
    ("Input", "input_param { shape { dim: 1 dim: 3 } }", [(1, 3), (1, 3)]),
    ("Input", "input_param { shape { dim: 1 dim: 3 } shape { dim: 1 } }", [(1, 3), (1,)]),
    ("MemoryData", "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }", [(2, 3, 4, 5), (2,)]),
    ("DummyData", "dummy_data_param { num: 2 channels: 3 height: 4 width: 5 width: 6 }", [(2, 3, 4, 5), (2, 3, 4, 6)]),
    ("Data", f"{DATA} {CROPPED}", [(8, 3, 224, 224), (8,)]),
    ("Data", f"{DATA} transform_param {{ crop_size: 28 force_gray: true }}", [(8, 1, 28, 28)]),
    ("Data", f"{DATA} {RESIZED}", [(8, 3, 300, 400), (8,)]),
    ("Data", f"{DATA} transform_param {{ crop_h: 3 crop_w: 4 force_color: true }}", [(8, 3, 3, 4), (8,)]),
    ("ImageData", f"{IMAGES} }}", [(8, 3, 256, 320), (8,)]),
    ("ImageData", f"{IMAGES} is_color: false }} transform_param {{ crop_size: 224 }}", [(8, 1, 224, 224), (8,)]),
    ("ImageSegData", f"{IMAGES} }}", [(8, 3, 256, 320), (8, 1, 256, 320), (8, 1, 1, 2)]),
    ("WindowData", f"window_data_param {{ batch_size: 8 }} {CROPPED}", [(8, 3, 224, 224), (8,)]),
    ("AnnotatedData", f"{DATA} {RESIZED}", [(8, 3, 300, 400), (1, 1, 1, 8)]),
    ("VideoData", f"{DATA} transform_param {{ crop_size: 224 }}", [(8, 3, 224, 224), (8,)]),
]


def infer(type_: str, params: str, tops: int) -> list[tuple[int, ...]]:
    layer_type = layers.all_layer_types()[type_]
    return list(layer_type.infer(golden.layer_of(layer_type, Example("case", (), params, tops)), ()))


@pytest.mark.parametrize(("type_", "params", "shapes"), KNOWN)
def test_shapes_specified_by_the_prototxt(type_: str, params: str, shapes: list[tuple[int, ...]]) -> None:
    assert infer(type_, params, len(shapes)) == shapes


UNKNOWN = [
    ("Input", "", "the shape of its tops is not specified"),
    ("Data", f"{DATA} transform_param {{ crop_size: 224 mean_value: 128 }}", "the number of channels"),
    ("Data", f"{DATA} transform_param {{ force_color: true }}", "the size of its images"),
    (
        "Data",
        f"{DATA} transform_param {{ resize_param {{ resize_mode: FIT_SMALL_SIZE height: 3 width: 4 }} {MEANS} }}",
        "the size of its images",
    ),
    ("ImageData", "image_data_param { batch_size: 8 }", "the size of its images"),
    ("WindowData", "window_data_param { batch_size: 8 } transform_param { crop_size: 227 }", "the number of channels"),
    ("HDF5Data", "hdf5_data_param { batch_size: 8 }", "the shape of its tops"),
]


@pytest.mark.parametrize(("type_", "params", "what"), UNKNOWN)
def test_shapes_that_need_the_data_set_are_refused(type_: str, params: str, what: str) -> None:
    with pytest.raises(UnsupportedError, match=f"{what}.*give it with --input-size or --shape"):
        infer(type_, params, 2)


WRONG = [
    ("Data", CROPPED, "it needs a batch_size"),
    ("Data", f'{DATA} transform_param {{ mean_file: "m" mean_value: 1 }}', "mean_file and mean_value"),
    ("Data", f"{DATA} transform_param {{ force_color: true force_gray: true }}", "force_color and force_gray"),
    (
        "Data",
        f"{DATA} transform_param {{ force_gray: true mean_value: 1 mean_value: 2 }}",
        "2 mean values for images of 1",
    ),
    ("Data", f"{DATA} transform_param {{ resize_param {{ height: 3 }} }}", "resize_param needs a height and a width"),
    ("Data", "data_param { batch_sise: 8 }", "did you mean 'batch_size'?"),
    (
        "ImageData",
        f"{IMAGES} }} transform_param {{ crop_size: 257 }}",
        "the crop of 257 pixels is larger than the image, 256 pixels",
    ),
    ("ImageData", "image_data_param { new_height: 3 }", "must both be given"),
    ("WindowData", "window_data_param { batch_size: 8 }", "it needs transform_param { crop_size }"),
    ("HDF5Data", "hdf5_data_param { batch_size: 8 } transform_param { scale: 2 }", "does not transform data"),
    ("MemoryData", "memory_data_param { batch_size: 2 channels: 3 height: 4 }", "each at least 1"),
    ("DummyData", "dummy_data_param { shape { dim: 2 } num: 1 }", "only one form is allowed"),
    ("DummyData", "dummy_data_param { num: 1 channels: 1 height: 1 }", "it has 0 width for 2 tops"),
    ("VideoData", f"{DATA} video_data_param {{ video_type: VIDEO }}", "needs video_file"),
]


@pytest.mark.parametrize(("type_", "params", "words"), WRONG)
def test_wrong_parameters_are_refused(type_: str, params: str, words: str) -> None:
    with pytest.raises(NetError) as raised:
        infer(type_, params, 2)
    assert words in str(raised.value)


def test_random_filler_has_no_pytorch_form() -> None:
    layer_type = layers.all_layer_types()["DummyData"]
    params = 'dummy_data_param { shape { dim: 2 } data_filler { type: "gaussian" } }'
    with pytest.raises(UnsupportedError, match="'gaussian' draws new numbers in every forward pass"):
        layer_type.torch(golden.layer_of(layer_type, Example("case", (), params)), ())


def test_hdf5_output_is_refused_in_conversion() -> None:
    layer_type, shapes = layers.all_layer_types()["HDF5Output"], ((2, 3), (2,))
    layer = golden.layer_of(layer_type, Example("case", shapes, 'hdf5_output_param { file_name: "out.h5" }', 0))
    assert layer_type.infer(layer, shapes) == ()
    with pytest.raises(UnsupportedError, match=r"it writes 'out.h5', which a converted net cannot"):
        layer_type.torch(layer, shapes)
