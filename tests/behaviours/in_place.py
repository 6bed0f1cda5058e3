"""Layers in place: some types give right results in Caffe, others give wrong ones, which this project refuses."""

from __future__ import annotations

from tests.behaviours.notation import B

_WRONG_IN_PLACE = "Caffe reads what it has just written"
_OVERWRITTEN = "Caffe reads memory that another blob was written over"
_RIGHT = (
    "ReLU", "ReLU relu_param { negative_slope: 0.1 }", "PReLU", "ELU", "Sigmoid", "TanH", "BNLL", "Exp", "Dropout",
    "Power power_param { power: 2 shift: 1 }", "Threshold", "Swish", "Clip clip_param { min: -1 max: 1 }",
    "BatchNorm", "BatchNorm batch_norm_param { use_global_stats: false }", "BN bn_param { }", "Scale", "Bias",
    "Scale scale_param { bias_term: true axis: 2 }", "Softmax", "Softmax softmax_param { axis: 2 }", "MVN",
    "MVN mvn_param { across_channels: true normalize_variance: false }", "Normalize norm_param { }",
    "LRN lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 }",
    "Convolution convolution_param { num_output: 3 kernel_size: 3 pad: 1 }",
    "Deconvolution convolution_param { num_output: 3 kernel_size: 3 pad: 1 group: 3 }",
    "Permute permute_param { order: 0 order: 1 }", "Tile tile_param { tiles: 1 }", "Concat",
)  # fmt: skip
_WRONG = (
    "Convolution convolution_param { num_output: 3 kernel_size: 1 }",
    "Convolution convolution_param { num_output: 2 kernel_size: 3 }",
    "Deconvolution convolution_param { num_output: 3 kernel_size: 1 }",
    "InnerProduct inner_product_param { num_output: 4 axis: 3 }",
    "Pooling pooling_param { kernel_size: 3 stride: 1 pad: 1 }",
    "Pooling pooling_param { kernel_size: 2 stride: 2 }",
    "LRN",
    "ArgMax argmax_param { axis: 1 top_k: 3 }",
    "Permute permute_param { order: 0 order: 1 order: 3 order: 2 }",
    "Interp interp_param { shrink_factor: 3 }",
    "Reduction reduction_param { axis: 1 }",
)


def over_itself(index: int, layer: str, refused_here: str = "") -> B:
    """A copy of the input, then the layer in place on that copy, then one more layer."""
    type_, _, params = layer.partition(" ")
    lines = f"copy: Power data > x\nact: {type_} x > x | {params}\nafter: Power x > y | power_param {{ scale: 3 }}"
    return B(f"in place: {type_} ({index})", "data 2 3 4 4", lines, refused_here=refused_here)


BEHAVIOURS = (
    *(over_itself(index, layer) for index, layer in enumerate(_RIGHT)),
    *(over_itself(index, layer, _WRONG_IN_PLACE) for index, layer in enumerate(_WRONG, len(_RIGHT))),
    B(
        "in place: Eltwise product",
        "a 2 3; b 2 3",
        "copy: Power a > x\ne: Eltwise x b > x | eltwise_param { operation: PROD }\nafter: TanH x > y",
    ),
    B("in place: Eltwise sum", "a 2 3; b 2 3", "copy: Power a > x\ne: Eltwise x b > x", refused_here=_WRONG_IN_PLACE),
    B("in place: Eltwise maximum", "a 2 3; b 2 3", refused_here=_WRONG_IN_PLACE,
      layers="copy: Power a > x\ne: Eltwise x b > x | eltwise_param { operation: MAX }"),
    B("shared memory: a blob written over after it was read", "data 2 3 4 4",
      "c: TanH data > c\nf: Flatten c > f\np: Power c > p | power_param { scale: 2 }\nr: ReLU f > f\n"
      "g: Flatten p > g\ne: Eltwise f g > e"),
    B("shared memory: a blob written over before it is read", "data 2 3 4 4", refused_here=_OVERWRITTEN,
      layers="c: TanH data > c\nf: Flatten c > f\nr: ReLU f > f\np: Power c > p | power_param { scale: 2 }"),
    B("shared memory: a copy of Split", "data 2 3", refused_here=_OVERWRITTEN,
      layers="c: TanH data > c\ns: Split c > a b\nr: ReLU a > a\ne: Eltwise a b > e"),
    B("shared memory: of what was reshaped twice", "data 2 3 4 4", refused_here=_OVERWRITTEN,
      layers="c: TanH data > c\nf: Flatten c > f\n"
      "g: Reshape f > g | reshape_param { shape { dim: 0 dim: 2 dim: -1 } }\nr: ReLU g > g\nt: AbsVal f > t"),
    B("shared memory: a Permute of nothing", "data 2 3 4", refused_here=_OVERWRITTEN,
      layers="c: TanH data > c\ns: Permute c > a | permute_param { order: 0 order: 1 }\nr: ReLU a > a\np: Power c > p"),
    B("shared memory: a Permute is a copy", "data 2 3 4",
      "c: TanH data > c\ns: Permute c > a | permute_param { order: 0 order: 2 }\nr: ReLU a > a\np: Power c > p"),
    B("shared memory: a Slice of one piece", "data 2 3", refused_here=_OVERWRITTEN,
      layers="c: TanH data > c\ns: Slice c > a\nr: ReLU a > a\np: Power c > p"),
    B("shared memory: one of two pieces is a copy", "data 2 4",
      "c: TanH data > c\ns: Slice c > a b\nr: ReLU a > a\np: Power c > p\nq: Concat a b > q"),
    B("shared memory: what a Parameter has learned", "data 2 3", refused_here=_OVERWRITTEN,
      layers="w: Parameter > w | parameter_param { shape { dim: 2 dim: 3 } }\nr: ReLU w > w\ne: Eltwise data w > e"),
    B("shared memory: an input's", "data 2 3 4 4", refused_here=_OVERWRITTEN,
      layers="f: Flatten data > f\nr: ReLU f > f\np: Power data > p | power_param { scale: 2 }"),
    B("in place: Scale by a second bottom", "a 2 3 4; b 3", "copy: Power a > x\ns: Scale x b > x\nafter: TanH x > y"),
)  # fmt: skip
