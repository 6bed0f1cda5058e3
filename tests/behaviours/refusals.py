"""Nets that Caffe refuses, each for one reason; this project must refuse them with an error that names the layer."""
# ruff: noqa: E501 (tables: a net a line)

from __future__ import annotations

from tests.behaviours.notation import Behaviour


def no(name: str, inputs: str, layers: str = "", **more: object) -> Behaviour:
    return Behaviour(f"refused: {name}", inputs, layers, refused=True, **more)  # type: ignore[arg-type]


def image(name: str, line: str, inputs: str = "data 2 3 8 8") -> Behaviour:
    """One layer on one image."""
    type_, _, rest = line.partition(" ")
    return no(name, inputs, f"it: {type_} data > it" + (f" | {rest}" if rest else ""))


WIRING = (
    no("a bottom nobody makes", "data 2 3", "x: ReLU dta > x"),
    no("a bottom made only later", "data 2 3", "x: ReLU y > x\ny: ReLU data > y"),
    no("two layers make one blob", "data 2 3", "a: ReLU data > x\nb: TanH data > x"),
    no("in place on a blob another layer takes", "data 2 3",
       "a: AbsVal data > a\nb: TanH a > b\nc: ReLU a > a\nd: Eltwise a b > d"),
    no("a top that is an input", "data 2 3", "a: AbsVal data > a\nb: TanH a > data"),
    no("an unknown type", "data 2 3", "a: Relu data > a"),
    no("an unknown field", "data 2 3", 'a: ReLU data > a | relu_param { slope: 1 }'),
    no("an unknown parameter", "data 2 3", "a: ReLU data > a | rely_param { negative_slope: 1 }"),
    no("a field given twice", "data 2 3", "a: ReLU data > a | relu_param { negative_slope: 1 negative_slope: 2 }"),
    no("an enum's unknown name", "data 2 3 4 4", "a: Pooling data > a | pooling_param { pool: MEAN kernel_size: 2 }"),
    no("a string for a number", "data 2 3 4 4", 'a: Pooling data > a | pooling_param { kernel_size: "2" }'),
    no("two bottoms too many", "data 2 3", "a: ReLU data data > a"),
    no("one bottom too few", "data 2 3", "a: Scale > a"),
    no("two tops of ReLU", "data 2 3", "a: ReLU data > a b"),
    no("include and exclude", "data 2 3", "a: ReLU data > a | include { phase: TEST } exclude { phase: TRAIN }"),
    no("propagate_down of another count", "data 2 3", "a: ReLU data > a | propagate_down: true propagate_down: false"),
    no("shared weights of other shapes", "a 2 6; b 2 4",
       """fa: InnerProduct a > fa | inner_product_param { num_output: 4 } param { name: "w" }
       fb: InnerProduct b > fb | inner_product_param { num_output: 4 } param { name: "w" }"""),
    no("more params than blobs", "data 2 6",
       'f: InnerProduct data > f | inner_product_param { num_output: 4 bias_term: false } param { } param { }'),
    no("no closing brace", "data 2 3", text='input: "data" input_shape { dim: 2 dim: 3 }\nlayer { name: "a" type: "ReLU" bottom: "data" top: "a"'),
    no("input without a shape for each", "a 2 3; b 2 3", text='input: "a" input: "b" input_shape { dim: 2 dim: 3 } layer { name: "s" type: "Eltwise" bottom: "a" bottom: "b" top: "s" }'),
    no("another lr_mult for a shared blob", "a 2 6; b 2 6",
       """fa: InnerProduct a > fa | inner_product_param { num_output: 4 } param { name: "w" lr_mult: 1 }
       fb: InnerProduct b > fb | inner_product_param { num_output: 4 } param { name: "w" lr_mult: 2 }"""),
    no("V1 and V2 mixed", "data 2 3", text='input: "data" input_shape { dim: 2 dim: 3 } layer { name: "a" type: "ReLU" bottom: "data" top: "a" } layers { name: "b" type: TANH bottom: "a" top: "b" }'),
)  # fmt: skip

WINDOWS = (
    image("a kernel larger than the image", "Convolution convolution_param { num_output: 2 kernel_size: 12 stride: 2 }"),
    image("a group that does not divide", "Convolution convolution_param { num_output: 4 kernel_size: 3 group: 2 }"),
    image("no kernel", "Convolution convolution_param { num_output: 4 }"),
    image("no num_output", "Convolution convolution_param { kernel_size: 3 }"),
    image("kernel_size and kernel_h", "Convolution convolution_param { num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3 }"),
    image("three kernel sizes for two axes", "Convolution convolution_param { num_output: 2 kernel_size: 3 kernel_size: 3 kernel_size: 3 }"),
    image("stride 0", "Convolution convolution_param { num_output: 2 kernel_size: 3 stride: 0 }"),
    image("pooling without a kernel", "Pooling pooling_param { pool: MAX stride: 2 }"),
    image("pooling: global, and a kernel", "Pooling pooling_param { kernel_size: 2 global_pooling: true }"),
    image("pooling: global, and a pad", "Pooling pooling_param { pad: 1 global_pooling: true }"),
    image("pooling: pad as large as the kernel", "Pooling pooling_param { kernel_size: 2 pad: 2 }"),
    image("pooling: stochastic with pad", "Pooling pooling_param { pool: STOCHASTIC kernel_size: 3 pad: 1 }"),
    image("pooling: three axes", "Pooling pooling_param { kernel_size: 2 }", "data 3 8 8"),
    image("pooling: kernel_size and kernel_h", "Pooling pooling_param { kernel_size: 2 kernel_h: 2 kernel_w: 2 }"),
    no("pooling: a mask of averages", "data 1 2 6 6", "p: Pooling data > p m | pooling_param { pool: AVE kernel_size: 2 }"),
    image("spp: a pyramid too high", "SPP spp_param { pyramid_height: 5 }", "data 1 2 6 6"),
)  # fmt: skip

SHAPES = (
    no("eltwise of other sizes", "a 2 3 4 4; b 2 3 5 5", "s: Eltwise a b > s"),
    no("eltwise that would broadcast", "a 2 3 4 4; b 2 3 1 1", "s: Eltwise a b > s | eltwise_param { operation: PROD }"),
    no("eltwise of one coeff too few", "a 2 3; b 2 3", "s: Eltwise a b > s | eltwise_param { coeff: 1 }"),
    no("eltwise: coeff of a product", "a 2 3; b 2 3", "s: Eltwise a b > s | eltwise_param { operation: PROD coeff: 1 coeff: 2 }"),
    no("concat of other sizes", "a 2 3 4 4; b 2 3 5 4", "s: Concat a b > s"),
    no("concat of other ranks", "a 2 3 4; b 2 3", "s: Concat a b > s"),
    no("concat: axis and concat_dim", "a 2 3; b 2 3", "s: Concat a b > s | concat_param { axis: 1 concat_dim: 1 }"),
    no("slice that does not divide", "data 2 5", "s: Slice data > a b"),
    no("slice: too few points", "data 2 6", "s: Slice data > a b c | slice_param { slice_point: 2 }"),
    no("slice: points that fall", "data 2 6", "s: Slice data > a b c | slice_param { slice_point: 4 slice_point: 2 }"),
    no("slice: a point beyond", "data 2 6", "s: Slice data > a b | slice_param { slice_point: 9 }"),
    no("crop larger than the blob", "data 2 3 4 4; like 2 3 5 5", "c: Crop data like > c"),
    no("crop: an offset beyond", "data 2 3 6 6; like 2 3 5 5", "c: Crop data like > c | crop_param { offset: 3 }"),
    no("crop: two offsets for three axes", "data 2 3 6 6; like 2 3 5 5", "c: Crop data like > c | crop_param { axis: 1 offset: 0 offset: 0 }"),
    image("reshape: another count", "Reshape reshape_param { shape { dim: 2 dim: 5 } }"),
    image("reshape: two -1", "Reshape reshape_param { shape { dim: -1 dim: -1 } }"),
    image("reshape: 0 beyond the bottom", "Reshape reshape_param { shape { dim: 2 dim: 3 dim: 64 dim: 1 dim: 0 } }"),
    image("reshape: -1 that does not divide", "Reshape reshape_param { shape { dim: 7 dim: -1 } }"),
    no("reshape in place", "data 2 3 4", "r: Reshape data > data | reshape_param { shape { dim: 0 dim: -1 } }"),
    no("flatten in place", "data 2 3 4", "r: Flatten data > data"),
    image("softmax: an axis too far", "Softmax softmax_param { axis: 4 }"),
    image("softmax: an axis too far back", "Softmax softmax_param { axis: -5 }"),
    image("inner product: an axis too far", "InnerProduct inner_product_param { num_output: 2 axis: 4 }"),
    image("reduction: an axis too far", "Reduction reduction_param { axis: 5 }"),
    image("argmax: top_k beyond the axis", "ArgMax argmax_param { axis: 1 top_k: 4 }"),
    image("argmax: top_k beyond the image", "ArgMax argmax_param { top_k: 200 }", "data 2 3 4 4"),
    image("lrn: an even size", "LRN lrn_param { local_size: 4 }"),
    image("lrn: three axes", "LRN", "data 2 3 4"),
    image("log: a base of 0", "Log log_param { base: 0 }"),
    image("exp: a base below 0", "Exp exp_param { base: -3 }"),
    image("dropout: a ratio of 1", "Dropout dropout_param { dropout_ratio: 1 }"),
    image("prelu: one axis", "PReLU", "data 6"),
    image("embed: no num_output", "Embed embed_param { input_dim: 5 }"),
    image("permute: an axis twice", "Permute permute_param { order: 0 order: 0 }"),
    image("permute: an axis too far", "Permute permute_param { order: 4 }"),
    image("batchnorm: one axis", "BatchNorm", "data 6"),
    no("scale: a bottom that does not fit", "data 2 3 4 4; s 4", "s: Scale data s > out"),
    no("scale: beyond the last axis", "data 2 3 4; s 3 4 5", "s: Scale data s > out"),
    image("scale: num_axes beyond", "Scale scale_param { axis: 2 num_axes: 3 }"),
    no("bias: a bottom that does not fit", "data 2 3 4 4; b 2", "s: Bias data b > out"),
    no("filter: a selector of another batch", "data 4 3; keep 3", "f: Filter data keep > out"),
    no("filter: a selector of two numbers each", "data 4 3; keep 4 2", "f: Filter data keep > out"),
    no("batchreindex: two axes", "data 4 3; which 2 2", "f: BatchReindex data which > out"),
    no("lstm without cont", "data 4 2 5", "r: LSTM data > r | recurrent_param { num_output: 3 }"),
    no("lstm: cont of another length", "data 4 2 5; cont 3 2", "r: LSTM data cont > r | recurrent_param { num_output: 3 }"),
    no("lstm: no num_output", "data 4 2 5; cont 4 2", "r: LSTM data cont > r"),
    image("tile: no tiles", "Tile tile_param { axis: 1 }"),
    image("tile: an axis too far", "Tile tile_param { axis: 4 tiles: 2 }"),
    image("interp: zoom 0", "Interp interp_param { zoom_factor: 0 }"),
    no("priorbox: max_size below min_size", "data 1 2 2 2; image 1 3 9 9", "p: PriorBox data image > p | prior_box_param { min_size: 10 max_size: 5 }"),
    no("priorbox: no min_size", "data 1 2 2 2; image 1 3 9 9", "p: PriorBox data image > p"),
    no("detectionoutput: boxes that do not fit", "loc 1 44; conf 1 36; prior 1 2 48",
       "o: DetectionOutput loc conf prior > o | detection_output_param { num_classes: 3 nms_param { nms_threshold: 0.4 } }"),
    image("an input with too many elements", "ReLU", "data 100000 100000 2 2"),
)  # fmt: skip

BEHAVIOURS = WIRING + WINDOWS + SHAPES
