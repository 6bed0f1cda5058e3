"""Layers with sliding windows: convolution, pooling and similar types."""
# ruff: noqa: E501 (tables: a net a line)

from __future__ import annotations

from tests.behaviours.notation import B


def conv(name: str, inputs: str, params: str, type_: str = "Convolution", **more: object) -> B:
    line = f"conv1: {type_} data > conv1 | convolution_param {{ {params} }}"
    return B(f"{type_.lower()}: {name}", inputs, line, **more)  # type: ignore[arg-type]


def deconv(name: str, inputs: str, params: str) -> B:
    return conv(name, inputs, params, "Deconvolution")


def pool(name: str, inputs: str, params: str, **more: object) -> B:
    line = f"pool1: Pooling data > pool1 | pooling_param {{ {params} }}"
    return B(f"pooling: {name}", inputs, line, **more)  # type: ignore[arg-type]


CONVOLUTIONS = (
    conv("plain", "data 2 3 8 7", "num_output: 4 kernel_size: 3"),
    conv("stride and pad", "data 2 3 9 7", "num_output: 4 kernel_size: 3 stride: 2 pad: 1"),
    conv("stride that leaves pixels over", "data 1 3 8 8", "num_output: 4 kernel_size: 3 stride: 3"),
    conv("no bias", "data 1 3 6 6", "num_output: 4 kernel_size: 3 bias_term: false"),
    conv("1x1", "data 2 5 4 4", "num_output: 3 kernel_size: 1"),
    conv("1x1 of stride 2", "data 2 5 5 5", "num_output: 3 kernel_size: 1 stride: 2"),
    conv("group", "data 2 6 7 7", "num_output: 4 kernel_size: 3 group: 2"),
    conv("depthwise", "data 2 4 7 7", "num_output: 4 kernel_size: 3 group: 4 pad: 1"),
    conv("depthwise, two for each", "data 2 3 7 7", "num_output: 6 kernel_size: 3 group: 3"),
    conv("oblong kernel", "data 1 2 9 9", "num_output: 3 kernel_h: 3 kernel_w: 5"),
    conv("oblong everything", "data 1 2 9 9", "num_output: 3 kernel_h: 1 kernel_w: 3 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 1"),
    conv("pad_h alone", "data 1 2 6 6", "num_output: 3 kernel_size: 3 pad_h: 2 pad_w: 0"),
    conv("pad larger than the kernel", "data 1 2 4 4", "num_output: 2 kernel_size: 2 pad: 3"),
    conv("kernel_size twice", "data 1 2 8 8", "num_output: 3 kernel_size: 3 kernel_size: 2 stride: 1 stride: 2 pad: 1 pad: 0"),
    conv("dilation", "data 1 2 11 11", "num_output: 3 kernel_size: 3 dilation: 2"),
    conv("dilation with pad and group", "data 1 4 11 10", "num_output: 4 kernel_size: 3 dilation: 3 pad: 3 group: 2"),
    conv("dilation by axis", "data 1 2 11 11", "num_output: 3 kernel_size: 3 dilation: 2 dilation: 1"),
    conv("one axis", "data 2 3 12", "num_output: 4 kernel_size: 5 stride: 2 pad: 2"),
    conv("three axes", "data 1 2 5 6 4", "num_output: 3 kernel_size: 3 stride: 2 stride: 1 stride: 1 pad: 1"),
    conv("three axes, dilated", "data 1 2 7 7 7", "num_output: 2 kernel_size: 3 dilation: 2"),
    conv("four axes", "data 1 2 4 4 3 4", "num_output: 2 kernel_size: 2"),
    conv("force_nd_im2col", "data 1 2 6 6", "num_output: 3 kernel_size: 3 force_nd_im2col: true"),
    conv("channels at axis 2", "data 2 3 4 6 5", "num_output: 3 kernel_size: 3 axis: 2"),
    conv("channels at axis 0", "data 3 6 6", "num_output: 2 kernel_size: 3 axis: 0"),
    conv("negative axis", "data 2 3 6 6", "num_output: 2 kernel_size: 3 axis: -3"),
    conv("no spatial axis", "data 2 3", "num_output: 4"),
    conv("engine named", "data 1 3 5 5", "num_output: 2 kernel_size: 3 engine: CAFFE"),
    conv("kernel of the whole bottom", "data 2 3 5 4", "num_output: 6 kernel_h: 5 kernel_w: 4"),
    B("convolution: two bottoms, two tops", "a 1 3 6 6; b 1 3 6 6",
      "conv1: Convolution a b > x y | convolution_param { num_output: 2 kernel_size: 3 }"),
)  # fmt: skip

DECONVOLUTIONS = (
    deconv("plain", "data 2 3 4 5", "num_output: 2 kernel_size: 3"),
    deconv("stride 2, kernel 4, pad 1", "data 1 3 4 4", "num_output: 2 kernel_size: 4 stride: 2 pad: 1"),
    deconv("group", "data 1 4 4 4", "num_output: 6 kernel_size: 3 group: 2 stride: 2"),
    deconv("bilinear, as FCN writes it", "data 1 3 5 5",
           'num_output: 3 group: 3 kernel_size: 4 stride: 2 pad: 1 bias_term: false weight_filler { type: "bilinear" }'),
    deconv("dilation", "data 1 2 5 5", "num_output: 3 kernel_size: 3 dilation: 2 stride: 2"),
    deconv("dilation and group", "data 2 4 5 4", "num_output: 4 kernel_size: 3 dilation: 2 group: 4 pad: 2"),
    deconv("no bias", "data 1 2 4 4", "num_output: 3 kernel_size: 2 stride: 2 bias_term: false"),
    deconv("oblong", "data 1 2 4 5", "num_output: 3 kernel_h: 2 kernel_w: 4 stride_h: 2 stride_w: 3 pad_h: 0 pad_w: 1"),
    deconv("stride larger than the kernel", "data 1 2 3 3", "num_output: 2 kernel_size: 2 stride: 3"),
    deconv("one axis", "data 2 3 6", "num_output: 2 kernel_size: 3 stride: 2 pad: 1"),
    deconv("three axes", "data 1 2 3 3 4", "num_output: 2 kernel_size: 2 stride: 2"),
    deconv("1x1 of stride 2", "data 1 3 4 4", "num_output: 2 kernel_size: 1 stride: 2"),
)  # fmt: skip

MAXIMA = (
    pool("max", "data 2 3 8 8", "pool: MAX kernel_size: 2 stride: 2"),
    pool("max, the clipped last window", "data 1 2 8 8", "pool: MAX kernel_size: 3 stride: 2"),
    pool("max is the default, stride 1 too", "data 1 2 6 6", "kernel_size: 3"),
    pool("max with pad", "data 1 2 7 7", "pool: MAX kernel_size: 3 stride: 2 pad: 1"),
    pool("max, a last window beyond the image dropped", "data 1 2 4 4", "pool: MAX kernel_size: 2 stride: 3 pad: 1"),
    pool("max of negative numbers with pad", "data 1 2 6 6", "pool: MAX kernel_size: 3 stride: 2 pad: 1"),
    pool("max, oblong", "data 1 2 9 7", "pool: MAX kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 3 pad_h: 1 pad_w: 0"),
    pool("max, FLOOR", "data 1 2 8 8", "pool: MAX kernel_size: 3 stride: 2 round_mode: FLOOR"),
    pool("max, FLOOR with pad", "data 1 2 8 8", "pool: MAX kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR"),
    pool("max, global", "data 2 3 5 4", "pool: MAX global_pooling: true"),
    pool("max, stride larger than the kernel", "data 1 2 9 9", "pool: MAX kernel_size: 2 stride: 3"),
    pool("max, kernel larger than the image", "data 1 2 3 3", "pool: MAX kernel_size: 5 stride: 2 pad: 2"),
    pool("max, kernel 1", "data 1 2 5 5", "pool: MAX kernel_size: 1 stride: 2"),
    B("pooling: max with its mask", "data 2 3 7 7",
      "pool1: Pooling data > pool1 mask | pooling_param { pool: MAX kernel_size: 3 stride: 2 }"),
    B("pooling: mask with pad", "data 1 2 6 6",
      "pool1: Pooling data > pool1 mask | pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 }"),
)  # fmt: skip

AVERAGES = (
    pool("ave", "data 2 3 8 8", "pool: AVE kernel_size: 2 stride: 2"),
    pool("ave, the clipped last window", "data 1 2 8 8", "pool: AVE kernel_size: 3 stride: 2"),
    pool("ave, divisor with pad", "data 1 2 7 7", "pool: AVE kernel_size: 3 stride: 2 pad: 1"),
    pool("ave, divisor with pad and a clipped window", "data 1 2 8 8", "pool: AVE kernel_size: 3 stride: 2 pad: 1"),
    pool("ave, wide pad", "data 1 2 6 6", "pool: AVE kernel_size: 5 stride: 2 pad: 2"),
    pool("ave, stride 1 and pad", "data 1 2 6 6", "pool: AVE kernel_size: 3 pad: 1"),
    pool("ave, oblong pad", "data 1 2 6 9", "pool: AVE kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 0 pad_w: 1"),
    pool("ave, global", "data 2 3 5 4", "pool: AVE global_pooling: true"),
    pool("ave, kernel of the whole image", "data 2 3 7 7", "pool: AVE kernel_size: 7 stride: 1"),
    pool("ave, FLOOR", "data 1 2 8 8", "pool: AVE kernel_size: 3 stride: 2 round_mode: FLOOR"),
    pool("ave, FLOOR with pad", "data 1 2 8 8", "pool: AVE kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR"),
    pool("ave, a last window beyond the image dropped", "data 1 2 4 4", "pool: AVE kernel_size: 2 stride: 3 pad: 1"),
    pool("ave, stride larger than the kernel", "data 1 2 9 9", "pool: AVE kernel_size: 2 stride: 4"),
    pool("ave, kernel larger than the image", "data 1 2 3 3", "pool: AVE kernel_size: 5 stride: 2 pad: 2"),
)  # fmt: skip

OTHERS = (
    B("spp: max, three levels", "data 2 3 9 9", "spp: SPP data > spp | spp_param { pyramid_height: 3 }"),
    B("spp: ave, oblong image", "data 1 2 10 7", "spp: SPP data > spp | spp_param { pyramid_height: 2 pool: AVE }"),
    B("spp: one level", "data 1 2 6 6", "spp: SPP data > spp | spp_param { pyramid_height: 1 }"),
    B("spp: ave, three levels on 13 pixels", "data 1 2 13 13", "spp: SPP data > spp | spp_param { pyramid_height: 3 pool: AVE }"),
    B("im2col", "data 2 3 6 6", "col: Im2col data > col | convolution_param { kernel_size: 3 stride: 2 pad: 1 }"),
    B("im2col: dilated", "data 1 2 8 8", "col: Im2col data > col | convolution_param { kernel_size: 3 dilation: 2 }"),
    B("im2col: negative axis", "data 1 2 6 6", "col: Im2col data > col | convolution_param { kernel_size: 3 axis: -3 }"),
)  # fmt: skip

BEHAVIOURS = CONVOLUTIONS + DECONVOLUTIONS + MAXIMA + AVERAGES + OTHERS
