"""Types and blobs of forks. If Caffe lacks the type, it runs a net of other types that computes the same."""
# ruff: noqa: E501 (tables: a net a line)

from __future__ import annotations

from prototxt_gen.layers.example import literal, normal, positive, probabilities
from tests.behaviours.notation import B

_SCALED = "scale: Scale {} > {} | scale_param {{ bias_term: true }}"
_CONV = "conv1: Convolution data > conv1 | convolution_param { num_output: 4 kernel_size: 3 }\n"
_BN_FILLS = {"bn": (normal, positive, literal([1]))}
"""Statistics with a factor of 1."""


def merged(
    name: str, storage: str, params: str = "bn_param { }", statistic: str | None = None, dialect: str | None = None
) -> B:
    """A BN after a convolution. Caffe runs a BatchNorm and a Scale; `storage` writes their blobs as those of a BN."""
    return B(
        f"fork: BN, {name}", "data 2 3 6 6", f"{_CONV}bn: BN conv1 > bn | {params}\nrelu: ReLU bn > bn",
        caffe_layers=f"{_CONV}bn: BatchNorm conv1 > mid\n{_SCALED.format('mid', 'bn')}\nrelu: ReLU bn > bn",
        fills=_BN_FILLS, storage=storage, statistic=statistic, dialect=dialect,
    )  # fmt: skip


def batch_norm(name: str, storage: str, params: str) -> B:
    """A BatchNorm with five blobs, in the order of a fork."""
    return B(
        f"fork: BatchNorm, {name}", "data 2 3 6 6", f"{_CONV}bn: BatchNorm conv1 > bn | batch_norm_param {{ {params} }}",
        caffe_layers=f"{_CONV}bn: BatchNorm conv1 > mid\n{_SCALED.format('mid', 'bn')}", fills=_BN_FILLS, storage=storage,
    )  # fmt: skip


NORMS = (
    merged("buptwangfei's", "BN 148 inverse std"),
    merged("yjxiong's, variance", "BN 137 variance"),
    merged("PSPNet's, variance", "BN 152 variance"),
    merged("brocolli's", "BN 1111 inverse std"),
    merged("happynear's, variance by option", "BN 200 variance", statistic="variance"),
    merged("happynear's, inverse by option", "BN 200 inverse std", statistic="inverse_std"),
    merged("no fork told, variance by option", "BN 0 variance", statistic="variance"),
    merged("no fork told, yjxiong by option", "BN 0 variance", dialect="yjxiong"),
    merged("SegNet's", "BN SegNet", "bn_param { bn_mode: INFERENCE }"),
    merged("blobs of 1xC", "BN 148 inverse std, 1xC"),
    batch_norm("Xilinx's", "BatchNorm Xilinx", "scale_filler { value: 1 } bias_filler { value: 0 }"),
    batch_norm("NVCaffe's", "BatchNorm NVCaffe", "scale_bias: true"),
)

TYPES = (
    *(B(f"fork: {type_}", "data 2 3 7 7",
        f"dw: {type_} data > dw | convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 stride: 2 }}",
        caffe_layers="dw: Convolution data > dw | convolution_param { num_output: 3 kernel_size: 3 pad: 1 stride: 2 group: 3 }")
      for type_ in ("ConvolutionDepthwise", "DepthwiseConvolution", "ConvolutionDepthWise")),
    B("fork: Axpy", "a 2 3 1 1; x 2 3 4 4; y 2 3 4 4", "axpy: Axpy a x y > out",
      caffe_layers="""f: Reshape a > f | reshape_param { shape { dim: 0 dim: -1 } }
      s: Scale x f > s | scale_param { axis: 0 }
      axpy: Eltwise s y > out"""),
    B("fork: ShuffleChannel", "data 2 6 3 4", "sh: ShuffleChannel data > out | shuffle_channel_param { group: 2 }",
      caffe_layers="""r: Reshape data > r | reshape_param { shape { dim: 0 dim: 2 dim: 3 dim: -1 } }
      p: Permute r > p | permute_param { order: 0 order: 2 order: 1 order: 3 }
      o: Reshape p > out | reshape_param { shape { dim: 0 dim: 6 dim: 3 dim: 4 } }"""),
    B("fork: Transpose", "data 2 3 4", "t: Transpose data > out | transpose_param { dim: 2 dim: 0 dim: 1 }",
      caffe_layers="t: Permute data > out | permute_param { order: 2 order: 0 order: 1 }"),
    B("fork: pooling with ceil_mode", "data 2 3 8 8", "p: Pooling data > p | pooling_param { kernel_size: 3 stride: 2 ceil_mode: false }",
      caffe_layers="p: Pooling data > p | pooling_param { kernel_size: 3 stride: 2 round_mode: FLOOR }"),
    B("fork: Mish", "data 2 3 4", "m: Mish data > out",
      caffe_layers="b: BNLL data > b\nt: TanH b > t\nm: Eltwise data t > out | eltwise_param { operation: PROD }"),
    B("fork: ReLU6", "data 2 3 4", "r: Power data > x | power_param { scale: 5 }\nact: ReLU6 x > x"),
    B("fork: HardSwish", "data 2 3 4", "r: Power data > x | power_param { scale: 5 }\nact: HardSwish x > y"),
    B("fork: HardSigmoid", "data 2 3 4", "act: HardSigmoid data > y"),
    B("fork: HardSigmoid, alpha and beta", "data 2 3 4", "act: HardSigmoid data > y | hardsigmoid_param { alpha: 0.4 beta: 0.3 }"),
    B("fork: Upsample", "data 2 3 4 5", "up: Upsample data > up | upsample_param { scale: 2 }"),
    B("fork: Resize", "data 2 3 4 5", "up: Resize data > up | resize_param { height: 7 width: 6 }"),
    B("fork: Pad", "data 2 3 4 5", "pad: Pad data > pad | pad_param { pad_u: 1 pad_d: 2 pad_l: 3 pad_r: 0 }"),
    B("fork: Pad, mirrored", "data 2 3 4 5", "pad: Pad data > pad | pad_param { pad_type: REFLECT pad_u: 1 pad_l: 2 }"),
    B("fork: PixelShuffle", "data 2 8 3 4", "ps: PixelShuffle data > ps | pixelshuffle_param { upscale_factor: 2 }"),
    B("fork: LSTMUnit", "c 1 2 3; gates 1 2 12; cont 1 2", "u: LSTMUnit c gates cont > c1 h1", draws={"cont": literal([[1, 0]])}),
    B("fork: LayerNorm, not affine", "data 2 3 4 4", "n: LayerNorm data > n | layer_norm_param { elementwise_affine: false eps: 0.0 }",
      caffe_layers="n: MVN data > n | mvn_param { across_channels: true eps: 0 }"),
)  # fmt: skip

REGIONS = (
    B("fork: Proposal", "prob 1 18 4 5; box 1 36 4 5; info 1 4", draws={"prob": probabilities, "box": lambda rng, shape: 0.2 * rng.standard_normal(shape), "info": literal([[64, 80, 1, 1]])},
      layers="p: Proposal prob box info > rois | proposal_param { feat_stride: 16 min_size: 4 pre_nms_topn: 60 post_nms_topn: 10 nms_thresh: 0.7 ratio: 0.5 ratio: 1 ratio: 2 scale: 1 scale: 2 scale: 4 base_size: 16 anchor_rule: SCALE_OVER_BASE }",
      caffe_layers="p: Proposal prob box info > rois | proposal_param { feat_stride: 16 min_size: 4 pre_nms_topn: 60 post_nms_topn: 10 nms_thresh: 0.7 ratio: 0.5 ratio: 1 ratio: 2 scale: 1 scale: 2 scale: 4 base_size: 16 }"),
)  # fmt: skip

BEHAVIOURS = NORMS + TYPES + REGIONS
