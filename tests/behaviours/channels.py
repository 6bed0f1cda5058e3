"""Layers with learned numbers for each channel, normalisation layers, inner products."""
# ruff: noqa: E501 (tables: a net a line)

from __future__ import annotations

from prototxt_gen.layers.example import labels, literal, positive
from tests.behaviours.notation import B

_CONV = "conv1: Convolution data > conv1 | convolution_param { num_output: 4 kernel_size: 3 bias_term: false }\n"

BATCH_NORMS = (
    B("batchnorm: alone, with its factor", "data 2 3 4 4", "bn: BatchNorm data > bn"),
    B("batchnorm: eps without a Scale after it", "data 2 3 4 4", "bn: BatchNorm data > bn | batch_norm_param { eps: 0.1 }"),
    B("batchnorm: global stats asked for", "data 2 3 4 4",
      "bn: BatchNorm data > bn | batch_norm_param { use_global_stats: true }"),
    B("batchnorm: batch statistics at test time", "data 3 2 4 4",
      "bn: BatchNorm data > bn | batch_norm_param { use_global_stats: false }"),
    B("batchnorm: a factor of 0, no statistics yet", "data 2 3 4 4", "bn: BatchNorm data > bn",
      fills={"bn": (positive, positive, literal([0]))}),
    B("batchnorm: in place", "data 2 3 6 6", _CONV + "bn: BatchNorm conv1 > conv1"),
    B("batchnorm: then Scale, in place", "data 2 3 6 6",
      _CONV + "bn: BatchNorm conv1 > conv1\nscale: Scale conv1 > conv1 | scale_param { bias_term: true }"),
    B("batchnorm: Scale not the next layer", "data 2 3 6 6",
      _CONV + """bn: BatchNorm conv1 > bn
      other: ReLU data > other
      scale: Scale bn > scale | scale_param { bias_term: true }"""),
    B("batchnorm: ReLU between it and Scale", "data 2 3 6 6",
      _CONV + "bn: BatchNorm conv1 > conv1\nrelu: ReLU conv1 > conv1\nscale: Scale conv1 > scale"),
    B("batchnorm: its output used elsewhere too", "data 2 3 6 6",
      _CONV + """bn: BatchNorm conv1 > bn
      scale: Scale bn > scale | scale_param { bias_term: true }
      sum: Eltwise bn scale > sum"""),
    B("batchnorm: the convolution's output used elsewhere too", "data 2 3 6 6",
      _CONV + """bn: BatchNorm conv1 > bn
      scale: Scale bn > scale | scale_param { bias_term: true }
      sum: Eltwise conv1 scale > sum"""),
    B("batchnorm: after InnerProduct", "data 4 5",
      "fc: InnerProduct data > fc | inner_product_param { num_output: 3 }\nbn: BatchNorm fc > bn"),
    B("batchnorm: on five axes", "data 2 3 2 3 2", "bn: BatchNorm data > bn"),
    B("batchnorm: before a convolution", "data 2 3 6 6",
      "bn: BatchNorm data > bn\nscale: Scale bn > bn | scale_param { bias_term: true }\n" + _CONV.replace("data >", "bn >")),
    B("batchnorm: Scale without bias, then Bias", "data 2 3 6 6",
      _CONV + "bn: BatchNorm conv1 > conv1\nscale: Scale conv1 > conv1\nbias: Bias conv1 > conv1"),
    B("batchnorm: after a deconvolution with groups", "data 2 4 4 4",
      """up: Deconvolution data > up | convolution_param { num_output: 6 kernel_size: 3 group: 2 stride: 2 }
      bn: BatchNorm up > bn
      scale: Scale bn > scale | scale_param { bias_term: true }"""),
)  # fmt: skip

BNS = (
    B("bn: the paper's, inverse standard deviation", "data 2 3 4 4", "bn: BN data > bn | bn_param { }"),
    B(
        "bn: after a convolution, in place",
        "data 2 3 6 6",
        _CONV + "bn: BN conv1 > conv1 | bn_param { }\nrelu: ReLU conv1 > conv1",
    ),
    B("bn: frozen", "data 2 3 4 4", "bn: BN data > bn | bn_param { frozen: true eps: 0.01 }"),
    B(
        "bn: its output used twice",
        "data 2 3 6 6",
        _CONV + "bn: BN conv1 > bn | bn_param { eps: 0.001 }\nsum: Eltwise conv1 bn > sum",
    ),
)

SCALES = (
    B("scale: by channel", "data 2 3 4 4", "scale: Scale data > scale"),
    B("scale: with bias", "data 2 3 4 4", "scale: Scale data > scale | scale_param { bias_term: true }"),
    B("scale: axis 0", "data 2 3 4", "scale: Scale data > scale | scale_param { axis: 0 }"),
    B("scale: axis 2", "data 2 3 4 5", "scale: Scale data > scale | scale_param { axis: 2 }"),
    B(
        "scale: last axis, with bias",
        "data 2 3 4 5",
        "scale: Scale data > scale | scale_param { axis: -1 bias_term: true }",
    ),
    B("scale: two axes", "data 2 3 4 5", "scale: Scale data > scale | scale_param { axis: 1 num_axes: 2 }"),
    B(
        "scale: all axes from 1",
        "data 2 3 4 5",
        "scale: Scale data > scale | scale_param { num_axes: -1 bias_term: true }",
    ),
    B("scale: one number", "data 2 3 4 4", "scale: Scale data > scale | scale_param { num_axes: 0 bias_term: true }"),
    B(
        "scale: second bottom by image and channel",
        "data 2 3 4 4; s 2 3",
        "scale: Scale data s > out | scale_param { axis: 0 }",
    ),
    B(
        "scale: second bottom by channel, with bias",
        "data 2 3 4 4; s 3",
        "scale: Scale data s > out | scale_param { bias_term: true }",
    ),
    B("scale: second bottom of one number", "data 2 3 4 4; s", "scale: Scale data s > out | scale_param { axis: 0 }"),
    B(
        "scale: second bottom of the same shape",
        "data 2 3 4 4; s 2 3 4 4",
        "scale: Scale data s > out | scale_param { axis: 0 }",
    ),
    B("scale: in place", "data 2 3 4 4", "scale: Scale data > data | scale_param { bias_term: true }"),
    B(
        "scale: SE block, 2x3x1x1 flattened first",
        "data 2 3 4 4; gate 2 3 1 1",
        """flat: Reshape gate > flat | reshape_param { shape { dim: 0 dim: -1 } }
      out: Scale data flat > out | scale_param { axis: 0 }""",
    ),
    B("bias: by channel", "data 2 3 4 4", "bias: Bias data > bias"),
    B("bias: axis 2", "data 2 3 4 5", "bias: Bias data > bias | bias_param { axis: 2 }"),
    B("bias: two axes", "data 2 3 4 5", "bias: Bias data > bias | bias_param { axis: 1 num_axes: 2 }"),
    B("bias: one number", "data 2 3 4", "bias: Bias data > bias | bias_param { num_axes: 0 }"),
    B("bias: second bottom", "data 2 3 4 4; b 3 4", "bias: Bias data b > out | bias_param { axis: 1 }"),
    B("bias: second bottom at axis 0", "data 2 3 4 4; b 2", "bias: Bias data b > out | bias_param { axis: 0 }"),
)

NORMS = (
    B("lrn: across channels", "data 2 7 4 4", "norm: LRN data > norm | lrn_param { local_size: 5 alpha: 0.5 beta: 0.75 }"),
    B("lrn: k", "data 2 7 4 4", "norm: LRN data > norm | lrn_param { local_size: 3 alpha: 0.2 beta: 0.75 k: 2.5 }"),
    B("lrn: defaults", "data 2 7 4 4", "norm: LRN data > norm"),
    B("lrn: more channels than there are", "data 2 3 4 4", "norm: LRN data > norm | lrn_param { local_size: 9 alpha: 1 }"),
    B("lrn: local_size 1", "data 2 3 4 4", "norm: LRN data > norm | lrn_param { local_size: 1 alpha: 1 beta: 0.5 }"),
    B("lrn: within channel", "data 2 3 6 6",
      "norm: LRN data > norm | lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 beta: 0.75 }"),
    B("lrn: within channel, 5 wide on an oblong image", "data 1 2 5 7",
      "norm: LRN data > norm | lrn_param { norm_region: WITHIN_CHANNEL local_size: 5 alpha: 2 beta: 1 }"),
    B("lrn: within channel, k is not read", "data 1 2 5 7",
      "norm: LRN data > norm | lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 2 beta: 1 k: 3 }"),
    B("mvn: each channel", "data 2 3 4 5", "mvn: MVN data > mvn"),
    B("mvn: across channels", "data 2 3 4 5", "mvn: MVN data > mvn | mvn_param { across_channels: true }"),
    B("mvn: means alone", "data 2 3 4 5", "mvn: MVN data > mvn | mvn_param { normalize_variance: false }"),
    B("mvn: means alone, across channels", "data 2 3 4 5",
      "mvn: MVN data > mvn | mvn_param { normalize_variance: false across_channels: true }"),
    B("mvn: eps", "data 2 3 4 5", "mvn: MVN data > mvn | mvn_param { eps: 0.5 }"),
    B("normalize: SSD's, by channel", "data 2 3 4 4",
      "norm: Normalize data > norm | norm_param { across_spatial: false channel_shared: false }"),
    B("normalize: across space, one scale", "data 2 3 4 4",
      "norm: Normalize data > norm | norm_param { across_spatial: true channel_shared: true }"),
    B("normalize: defaults", "data 2 3 4 4", "norm: Normalize data > norm | norm_param { }"),
    B("normalize: eps", "data 2 3 2 2", "norm: Normalize data > norm | norm_param { across_spatial: false eps: 0.3 }"),
)  # fmt: skip


def fc(name: str, inputs: str, params: str) -> B:
    return B(f"innerproduct: {name}", inputs, f"fc: InnerProduct data > fc | inner_product_param {{ {params} }}")


INNER_PRODUCTS = (
    fc("plain", "data 3 5", "num_output: 4"),
    fc("of an image", "data 2 3 4 5", "num_output: 6"),
    fc("no bias", "data 2 3 4 5", "num_output: 6 bias_term: false"),
    fc("axis 2", "data 2 3 4 5", "num_output: 6 axis: 2"),
    fc("last axis", "data 2 3 4 5", "num_output: 6 axis: -1"),
    fc("axis 0", "data 2 3 4", "num_output: 5 axis: 0"),
    fc("transposed", "data 3 5", "num_output: 4 transpose: true"),
    fc("transposed, of an image, without bias", "data 2 3 2 2", "num_output: 4 transpose: true bias_term: false"),
    fc("transposed, axis 2", "data 2 3 4 5", "num_output: 6 transpose: true axis: 2"),
    fc("one axis, axis 0", "data 5", "num_output: 2 axis: 0"),
    B("innerproduct: then BatchNorm and Scale", "data 3 5",
      """fc: InnerProduct data > fc | inner_product_param { num_output: 4 transpose: true }
      bn: BatchNorm fc > fc
      scale: Scale fc > fc | scale_param { bias_term: true }"""),
    B("innerproduct: then Softmax on axis 2", "data 2 3 4",
      """fc: InnerProduct data > fc | inner_product_param { num_output: 5 axis: 2 }
      prob: Softmax fc > prob | softmax_param { axis: 2 }"""),
    B("embed: with bias", "data 2 3", "em: Embed data > em | embed_param { input_dim: 7 num_output: 4 }",
      draws={"data": labels(7)}),
    B("embed: no bias", "data 5", "em: Embed data > em | embed_param { input_dim: 7 num_output: 4 bias_term: false }",
      draws={"data": labels(7)}),
)  # fmt: skip

BEHAVIOURS = BATCH_NORMS + BNS + SCALES + NORMS + INNER_PRODUCTS
