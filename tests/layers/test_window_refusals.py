"""Errors of layer types with windows or sizes, their MACs, and their use of torch.nn's own classes."""

from __future__ import annotations

import pytest

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError, UnsupportedError
from tests.layers.test_utility_layers import layer_of

Shape = tuple[int, ...]

REFUSED: list[tuple[str, list[Shape], str, int, str]] = [
    ("Pooling", [(1, 1, 4, 4)], "pooling_param { kernel_size: 2 kernel_h: 2 kernel_w: 2 }", 1, "either kernel_size"),
    ("Pooling", [(1, 1, 4, 4)], "pooling_param { kernel_h: 2 }", 1, "either kernel_size"),
    ("Pooling", [(1, 1, 4, 4)], "pooling_param { kernel_size: 2 global_pooling: true }", 1, "must not be given"),
    ("Pooling", [(1, 1, 4, 4)], "pooling_param { global_pooling: true stride: 2 }", 1, "stride 1"),
    ("Pooling", [(1, 1, 4, 4)], "pooling_param { kernel_size: 2 pad: 2 }", 1, "pad must be smaller"),
    ("Pooling", [(1, 1, 4, 4)], "pooling_param { kernel_size: 2 pad_h: 1 }", 1, "either pad, or pad_h and pad_w"),
    (
        "Pooling",
        [(1, 1, 4, 4)],
        "pooling_param { kernel_size: 2 stride: 1 stride_h: 1 stride_w: 1 }",
        1,
        "either stride",
    ),
    ("Pooling", [(1, 1, 4, 4)], "pooling_param { kernel_size: 0 }", 1, "at least 1"),
    ("Pooling", [(1, 1, 4, 4)], "pooling_param { kernel_size: 2 pad: 1 pad_l: 1 }", 1, "is allowed"),
    ("Pooling", [(1, 1, 4, 4)], "pooling_param { kernel_size: 2 pool: AVE }", 2, "only MAX has a second top"),
    ("Pooling", [(1, 1, 4, 4)], "pooling_param { kernel_size: 3 pool: STOCHASTIC pad: 1 }", 1, "only MAX and AVE"),
    (
        "Pooling",
        [(1, 1, 4, 4)],
        "pooling_param { kernel_size: 2 stride: 3 dilation: 2 }",
        1,
        "dilation is supported only",
    ),
    ("Pooling", [(1, 1, 4, 4)], "pooling_param { kernel_size: 2 pool: LOWRES }", 1, "pool is not understood"),
    ("Pooling", [(1, 1, 2, 4)], "pooling_param { kernel_size: 3 stride: 1 }", 1, "larger than the padded bottom"),
    ("Pooling", [(1, 4, 4)], "pooling_param { kernel_size: 2 }", 1, "4 axes, not 1x4x4"),
    (
        "SPP",
        [(1, 1, 5, 5)],
        "spp_param { pyramid_height: 3 }",
        1,
        "level 2 of the pyramid, 4x4 windows, does not fit 5x5",
    ),
    ("SPP", [(1, 1, 5, 5)], "", 1, "pyramid_height must be at least 1"),
    ("LRN", [(1, 1, 5, 5)], "lrn_param { local_size: 4 }", 1, "must be odd, not 4"),
    ("Crop", [(1, 1, 5, 5), (1, 1, 4, 4)], "crop_param { offset: 2 }", 1, "1x1x5x5 and 1x1x4x4; axis 2 is too short"),
    ("Crop", [(1, 1, 5, 5), (1, 1, 4, 4)], "crop_param { axis: 1 offset: 0 offset: 1 }", 1, "one for each of 3 axes"),
    ("CropCenter", [(1, 1, 4, 4)], "crop_center_param { crop_size: 0 crop_size: 2 }", 1, "it has 2 crop_size"),
    ("InnerProduct", [(2, 3)], "inner_product_param { num_output: 2 axis: 2 }", 1, "axis 2 is not an axis"),
    (
        "InnerProduct",
        [(2, 3)],
        "inner_product_param { num_output: 2 normalize: true }",
        1,
        "normalize is not understood",
    ),
    ("Embed", [(2,)], "embed_param { num_output: 2 }", 1, "input_dim must be at least 1"),
    ("Interp", [(1, 1, 3, 3)], "interp_param { height: 3 }", 1, "it needs zoom_factor"),
    ("Interp", [(1, 1, 3, 3)] * 2, "interp_param { zoom_factor: 2 }", 1, "must not be given as well"),
    ("Interp", [(1, 1, 3, 3)], "interp_param { zoom_factor: 2 pad_beg: 1 }", 1, "can only crop"),
    ("Interp", [(1, 1, 3, 3)], "interp_param { zoom_factor: 2 pad_beg: -2 pad_end: -1 }", 1, "leaves nothing"),
    ("Upsample", [(1, 1, 3, 3)], "upsample_param { upsample_h: 6 upsample_w: 6 }", 1, "need a mask"),
    ("Upsample", [(1, 1, 3, 3), (1, 1, 3, 4)], "", 1, "a mask of equal shape"),
    ("Upsample", [(1, 1, 3, 3)] * 2, "upsample_param { scale: 3 pad_out_h: true }", 1, "must be 2"),
    ("Upsample", [(1, 1, 3, 3)] * 2, "upsample_param { scale: 1 }", 1, "greater than 1"),
    ("PixelShuffle", [(1, 6, 3, 3)], "pixelshuffle_param { upscale_factor: 2 }", 1, "2x2 does not divide the channels"),
    ("Reorg", [(1, 4, 3, 4)], "reorg_param { stride: 2 }", 1, "does not divide the size"),
    ("ShuffleChannel", [(1, 4, 3, 4)], "shuffle_channel_param { group: 3 }", 1, "divides the channels"),
    ("Pad", [(1, 1, 3, 3)], "pad_param { pad_u: -1 pad_d: 1 }", 1, "is not supported"),
    ("Pad", [(1, 1, 3, 3)], "pad_param { pad_type: REFLECT pad_u: 3 }", 1, "narrower than its bottom"),
    ("Pad", [(1, 3, 3)], "pad_param { pad_u: 1 }", 1, "needs paddings"),
    ("Pad", [(1, 1, 3, 3)], "pad_param { pad: true axis: 2 pad_to: 4 }", 1, "is not understood"),
    ("ConvolutionDepthwise", [(1, 3, 4, 4)], "convolution_param { num_output: 6 kernel_size: 1 }", 1, "3 channels"),
    ("Convolution", [(1, 3, 4, 4)], "convolution_param { num_output: 6 kernel_size: 9 }", 1, "do not fit"),
    (
        "Convolution",
        [(1, 3, 4, 4)],
        "convolution_param { num_output: 2 kernel_size: 1 dilation_h: 2 }",
        1,
        "at least 1",
    ),
    (
        "Convolution",
        [(1, 3, 4, 4)],
        "convolution_param { num_output: 2 kernel_size: 1 pad: 1 pad_l: 1 }",
        1,
        "no pad",
    ),
    ("Deconvolution", [(1, 1, 1, 1)], "convolution_param { num_output: 1 kernel_size: 2 pad: 1 }", 1, "size 0x0"),
    ("Resize", [(1, 1, 3, 3)], "resize_param { height: 2 }", 1, "it needs width"),
]


@pytest.mark.parametrize(("type_", "bottoms", "params", "tops", "words"), REFUSED)
def test_wrong_parameters_are_refused(type_: str, bottoms: list[Shape], params: str, tops: int, words: str) -> None:
    with pytest.raises(NetError, match=f"layer 'it' \\({type_}\\): .*{words}"):
        layers.all_layer_types()[type_].infer(layer_of(type_, bottoms, params, tops), bottoms)


def test_layers_without_a_lowering_are_refused() -> None:
    params, shape = "convolution_param { num_output: 2 kernel_size: 2 }", (1, 3, 4, 5, 5, 4)
    layer_type, layer = layers.all_layer_types()["Deconvolution"], layer_of("Deconvolution", [shape], params)
    assert layer_type.infer(layer, [shape]) == ((1, 2, 5, 6, 6, 5),)
    with pytest.raises(UnsupportedError, match="for up to 3 spatial axes"):
        layer_type.torch(layer, [shape])


@pytest.mark.parametrize(
    ("type_", "bottom", "params", "macs"),
    [
        ("Convolution", (2, 4, 8, 8), "convolution_param { num_output: 6 kernel_size: 3 group: 2 pad: 1 }", 13824),
        ("Deconvolution", (2, 4, 3, 3), "convolution_param { num_output: 6 kernel_size: 3 group: 2 }", 1944),
        ("ConvolutionDepthwise", (1, 4, 8, 8), "convolution_param { num_output: 4 kernel_size: 3 pad: 1 }", 2304),
        ("InnerProduct", (2, 3, 4, 5), "inner_product_param { num_output: 7 axis: 2 }", 840),
        ("Pooling", (2, 3, 4, 5), "pooling_param { kernel_size: 2 }", 0),
    ],
)
def test_macs(type_: str, bottom: Shape, params: str, macs: int) -> None:
    layer_type, layer = layers.all_layer_types()[type_], layer_of(type_, [bottom], params)
    assert layer_type.macs(layer, [bottom], layer_type.infer(layer, [bottom])) == macs


@pytest.mark.parametrize(
    ("type_", "bottom", "params", "stock"),
    [
        ("Pooling", (1, 2, 6, 7), "pooling_param { kernel_size: 3 stride: 2 pad: 1 }", "MaxPool2d"),
        ("Pooling", (1, 2, 6, 7), "pooling_param { pool: AVE kernel_size: 3 stride: 2 }", "AvgPool2d"),
        ("Pooling", (1, 2, 6, 7), "pooling_param { pool: AVE global_pooling: true }", "AdaptiveAvgPool2d"),
        ("Convolution", (1, 2, 6, 7), "convolution_param { num_output: 2 kernel_size: 3 }", "Conv2d"),
        ("ConvolutionDepthwise", (1, 2, 6, 7), "convolution_param { num_output: 2 kernel_size: 3 }", "Conv2d"),
        ("Deconvolution", (1, 2, 6, 7), "convolution_param { num_output: 2 kernel_size: 3 }", "ConvTranspose2d"),
        ("InnerProduct", (1, 2), "inner_product_param { num_output: 2 }", "Linear"),
        ("InnerProduct", (1, 2, 3, 3), "inner_product_param { num_output: 2 }", "Sequential"),
        ("LRN", (1, 2, 3, 3), "", "LocalResponseNorm"),
        ("Interp", (1, 2, 3, 3), "interp_param { height: 5 width: 5 }", "Upsample"),
        ("PixelShuffle", (1, 4, 3, 3), "pixelshuffle_param { upscale_factor: 2 }", "PixelShuffle"),
        ("ShuffleChannel", (1, 4, 3, 3), "shuffle_channel_param { group: 2 }", "ChannelShuffle"),
        ("Pad", (1, 4, 3, 3), "pad_param { pad_type: REFLECT pad_u: 1 }", "ReflectionPad2d"),
    ],
)
def test_torch_nn_classes_are_used_where_they_match(type_: str, bottom: Shape, params: str, stock: str) -> None:
    from torch import nn

    assert type(layers.all_layer_types()[type_].torch(layer_of(type_, [bottom], params), [bottom])) is getattr(
        nn, stock
    )
