"""Behaviour of whole nets: connections, shared weights, phases, old forms of the prototxt."""
# ruff: noqa: E501 (tables: a net a line)

from __future__ import annotations

from prototxt_gen.layers.example import labels
from tests.behaviours.notation import B

_FC = "inner_product_param { num_output: 4 }"
_CONV = "convolution_param { num_output: 3 kernel_size: 3 pad: 1 }"

WIRING = (
    B("net: a chain in place", "data 2 3 6 6",
      f"""conv1: Convolution data > conv1 | {_CONV}
      bn1: BatchNorm conv1 > conv1
      scale1: Scale conv1 > conv1 | scale_param {{ bias_term: true }}
      relu1: ReLU conv1 > conv1
      drop1: Dropout conv1 > conv1
      conv2: Convolution conv1 > conv2 | {_CONV}
      relu2: ReLU conv2 > conv2"""),
    B("net: in place on the input", "data 2 3 4 4", "relu: ReLU data > data\nx: Power data > x | power_param { shift: 1 }"),
    B("net: in place, then used twice", "data 2 3 6 6",
      f"""conv1: Convolution data > conv1 | {_CONV}
      relu1: ReLU conv1 > conv1
      a: AbsVal conv1 > a
      sum: Eltwise conv1 a > sum"""),
    B("net: the input is an output's sibling", "data 2 3 4 4", "a: AbsVal data > a\nb: TanH data > b\nc: Eltwise a data > c"),
    B("net: four outputs", "data 2 6 4 4", "sl: Slice data > a b c\nx: ReLU a > x\ny: TanH data > y"),
    B("net: three inputs", "a 2 3; b 2 3; c 2 4", "sum: Eltwise a b > sum\ncat: Concat sum c > cat"),
    B("net: an input nothing takes", "data 2 3; unused 2 5", "x: AbsVal data > x"),
    B("net: residual, ReLU in place on the sum", "data 2 3 6 6",
      f"""conv1: Convolution data > conv1 | {_CONV}
      sum: Eltwise data conv1 > sum
      relu: ReLU sum > sum
      conv2: Convolution sum > conv2 | {_CONV}"""),
    B("net: layer names with slashes and dots", "data 2 3 4 4",
      f"""block/a.1: Convolution data > block/a.1 | {_CONV}
      block/a.1/relu: ReLU block/a.1 > block/a.1
      block/a.1/b: Convolution block/a.1 > out/b | {_CONV}"""),
    B("net: layer and blob names apart", "data 2 3 4 4", f"c: Convolution data > x | {_CONV}\nx: ReLU x > y\ny: AbsVal y > c"),
    B("net: names that are not words", "my data 2 3 4 4",
      text="""name: "odd"
      input: "my data" input_shape { dim: 2 dim: 3 dim: 4 dim: 4 }
      layer { name: "conv 1 (é)" type: "Convolution" bottom: "my data" top: "conv 1 (é)"
        convolution_param { num_output: 2 kernel_size: 1 } }
      layer { name: "1:0" type: "ReLU" bottom: "conv 1 (é)" top: "out:0" }"""),
    B("net: two layers of one name, without weights", "data 2 3", "act: ReLU data > a\nact: TanH a > b"),
    B("net: last layer in place with its own name", "data 2 4", f"fc: InnerProduct data > fc | {_FC}\nprob: Softmax fc > fc"),
)  # fmt: skip

SHARING = (
    B("sharing: two convolutions", "a 1 3 5 5; b 2 3 6 6",
      f"""ca: Convolution a > ca | {_CONV} param {{ name: "w" }} param {{ name: "b" }}
      cb: Convolution b > cb | {_CONV} param {{ name: "w" }} param {{ name: "b" }}"""),
    B("sharing: weights, not biases", "a 2 5; b 2 5",
      f"""fa: InnerProduct a > fa | {_FC} param {{ name: "w" }}
      fb: InnerProduct b > fb | {_FC} param {{ name: "w" }}"""),
    B("sharing: PReLU", "a 2 3 4 4; b 2 3 4 4",
      """pa: PReLU a > pa | param { name: "slope" }
      pb: PReLU b > pb | param { name: "slope" }"""),
    B("sharing: permissive, of other shapes", "a 2 6; b 2 4",
      """fa: InnerProduct a > fa | inner_product_param { num_output: 4 bias_term: false } param { name: "w" }
      fb: InnerProduct b > fb | inner_product_param { num_output: 6 bias_term: false } param { name: "w" share_mode: PERMISSIVE }"""),
    B("sharing: a blob within another type", "a 2 5; b 2 5",
      """fa: InnerProduct a > fa | inner_product_param { num_output: 5 bias_term: false } param { name: "w" }
      em: InnerProduct b > fb | inner_product_param { num_output: 5 bias_term: false transpose: true } param { name: "w" }"""),
    B("sharing: Scale after a shared convolution", "a 1 3 5 5; b 1 3 5 5",
      f"""ca: Convolution a > ca | {_CONV} param {{ name: "w" }} param {{ name: "b" }}
      sa: Scale ca > sa | scale_param {{ bias_term: true }}
      cb: Convolution b > cb | {_CONV} param {{ name: "w" }} param {{ name: "b" }}"""),
    B("sharing: BatchNorm statistics", "a 2 3 4 4; b 2 3 4 4",
      """ba: BatchNorm a > ba | param { name: "m" lr_mult: 0 } param { name: "v" lr_mult: 0 } param { name: "f" lr_mult: 0 }
      bb: BatchNorm b > bb | param { name: "m" lr_mult: 0 } param { name: "v" lr_mult: 0 } param { name: "f" lr_mult: 0 }"""),
)  # fmt: skip

PHASES = (
    B("phase: include and exclude", "data 2 3 4 4",
      """t: Power data > x | power_param { shift: 9 } include { phase: TRAIN }
      e: Power data > x | power_param { shift: 1 } include { phase: TEST }
      n: AbsVal x > y | exclude { phase: TRAIN }
      o: TanH y > z | exclude { phase: TEST }
      p: ReLU y > z | include { phase: TEST }"""),
    B("phase: a stage asked for", "data 2 3", stages=("deploy",),
      layers="""a: Power data > x | power_param { shift: 1 } include { stage: "deploy" }
      b: Power data > x | power_param { shift: 9 } exclude { stage: "deploy" }"""),
    B("phase: not_stage", "data 2 3", stages=("deploy", "small"),
      layers="""a: Power data > x | power_param { shift: 1 } include { stage: "deploy" stage: "small" }
      b: Power data > x | power_param { shift: 9 } include { not_stage: "small" }"""),
    B("phase: a stage nobody asked for", "data 2 3",
      layers="""a: Power data > x | power_param { shift: 1 } include { stage: "deploy" }
      b: Power data > x | power_param { shift: 9 } include { not_stage: "deploy" }"""),
    B("phase: levels", "data 2 3", level=2,
      layers="""a: Power data > x | power_param { shift: 1 } include { min_level: 1 max_level: 2 }
      b: Power data > x | power_param { shift: 9 } include { max_level: 1 }"""),
    B("phase: two rules, either is enough", "data 2 3",
      "a: Power data > x | power_param { shift: 1 } include { phase: TRAIN } include { phase: TEST }"),
    B("phase: the net's own state", "data 2 3",
      """state { phase: TEST stage: "on" }
      a: Power data > x | power_param { shift: 1 } include { stage: "on" }
      b: Power data > x | power_param { shift: 9 } exclude { stage: "on" }"""),
    B("phase: a train_val at TEST", "data 4 3 6 6; label 4", draws={"label": labels(4)}, onnx=False,
      layers=f"""conv1: Convolution data > conv1 | {_CONV}
      bn: BatchNorm conv1 > conv1
      fc: InnerProduct conv1 > fc | {_FC}
      loss: SoftmaxWithLoss fc label > loss
      acc: Accuracy fc label > acc | include {{ phase: TEST }}
      top2: Accuracy fc label > top2 | accuracy_param {{ top_k: 2 }} include {{ phase: TEST }}"""),
)  # fmt: skip

OLD = (
    B("text: V1 layers", "data 2 3 8 8", storage="V1", text="""
name: "v1" input: "data" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8
layers { bottom: "data" top: "conv1" name: "conv1" type: CONVOLUTION blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
  convolution_param { num_output: 4 kernel_size: 3 } }
layers { bottom: "conv1" top: "conv1" name: "relu1" type: RELU }
layers { bottom: "conv1" top: "pool1" name: "pool1" type: POOLING pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layers { bottom: "pool1" top: "norm1" name: "norm1" type: LRN lrn_param { local_size: 3 alpha: 0.1 beta: 0.75 } }
layers { bottom: "norm1" top: "fc" name: "fc" type: INNER_PRODUCT inner_product_param { num_output: 5 } }
layers { bottom: "fc" top: "prob" name: "prob" type: SOFTMAX }
"""),
    B("text: V1 layers of every plain type", "data 2 4 6 6", text="""
input: "data" input_dim: 2 input_dim: 4 input_dim: 6 input_dim: 6
layers { bottom: "data" top: "up" name: "up" type: DECONVOLUTION convolution_param { num_output: 2 kernel_size: 2 stride: 2 } }
layers { bottom: "up" top: "abs" name: "abs" type: ABSVAL }
layers { bottom: "abs" top: "pow" name: "pow" type: POWER power_param { power: 2 } }
layers { bottom: "pow" top: "exp" name: "exp" type: EXP exp_param { scale: -1 } }
layers { bottom: "exp" top: "sig" name: "sig" type: SIGMOID }
layers { bottom: "sig" top: "tanh" name: "tanh" type: TANH }
layers { bottom: "tanh" top: "bnll" name: "bnll" type: BNLL }
layers { bottom: "bnll" top: "mvn" name: "mvn" type: MVN }
layers { bottom: "mvn" top: "thr" name: "thr" type: THRESHOLD }
layers { bottom: "mvn" bottom: "thr" top: "elt" name: "elt" type: ELTWISE eltwise_param { operation: PROD } }
layers { bottom: "elt" top: "a" top: "b" name: "sl" type: SLICE slice_param { slice_dim: 2 slice_point: 5 } }
layers { bottom: "a" bottom: "b" top: "cat" name: "cat" type: CONCAT concat_param { concat_dim: 2 } }
layers { bottom: "cat" top: "flat" name: "flat" type: FLATTEN }
layers { bottom: "flat" top: "drop" name: "drop" type: DROPOUT }
layers { bottom: "drop" top: "arg" name: "arg" type: ARGMAX }
layers { bottom: "mvn" top: "col" name: "col" type: IM2COL convolution_param { kernel_size: 2 } }
"""),
    B("text: V1 sharing by name", "data 2 5", storage="V1", text="""
input: "data" input_shape { dim: 2 dim: 5 }
layers { bottom: "data" top: "a" name: "a" type: INNER_PRODUCT inner_product_param { num_output: 3 } param: "w" param: "b" }
layers { bottom: "data" top: "b" name: "b" type: INNER_PRODUCT inner_product_param { num_output: 3 } param: "w" param: "b" }
"""),
    B("text: V1 phases", "data 2 5", text="""
input: "data" input_shape { dim: 2 dim: 5 }
layers { bottom: "data" top: "a" name: "a" type: POWER power_param { shift: 1 } include: { phase: TEST } }
layers { bottom: "data" top: "a" name: "a" type: POWER power_param { shift: 9 } exclude: { phase: TEST } }
"""),
    B("text: V1 types by their numbers", "data 2 5", storage="V1", text="""
input: "data" input_shape { dim: 2 dim: 5 }
layers { bottom: "data" top: "a" name: "a" type: 14 inner_product_param { num_output: 3 } }
layers { bottom: "a" top: "b" name: "b" type: 35 }
layers { bottom: "b" top: "c" name: "c" type: 0x12 }
"""),
    B("text: V0, V1 fields around it do not count", "data 2 5 1 1", text="""
input: "data" input_dim: 2 input_dim: 5 input_dim: 1 input_dim: 1
layers { layer { name: "a" type: "relu" } name: "b" type: TANH relu_param { negative_slope: 0.5 } bottom: "data" top: "a" }
"""),
    B("text: no names at all", "data 2 5", onnx=False, text="""
input: "data" input_shape { dim: 2 dim: 5 }
layer { name: "" type: "InnerProduct" bottom: "data" top: "" inner_product_param { num_output: 3 } }
layer { name: "r" type: "ReLU" bottom: "" top: "" }
layer { name: "o" type: "TanH" bottom: "" top: "o" }
"""),
    B("text: a type given twice", refused=True, text="""
input: "data" input_shape { dim: 2 dim: 5 }
layer { name: "a" type: "ReLU" type: "TanH" bottom: "data" top: "a" }
"""),
    B("text: V0 layers", "data 2 3 8 8", storage="V0", text="""
name: "v0" input: "data" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "pad1" type: "padding" pad: 1 } bottom: "data" top: "pad1" }
layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 3 stride: 2 group: 1 blobs_lr: 1. blobs_lr: 2.
  weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 0. } } bottom: "pad1" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.75 } bottom: "conv1" top: "norm1" }
layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 } bottom: "norm1" top: "pool1" }
layers { layer { name: "fc" type: "innerproduct" num_output: 5 biasterm: true } bottom: "pool1" top: "fc" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.5 } bottom: "fc" top: "fc" }
layers { layer { name: "prob" type: "softmax" } bottom: "fc" top: "prob" }
"""),
    B("text: V0, the other types", "data 2 4 6 6; more 2 2 6 6", text="""
input: "data" input_dim: 2 input_dim: 4 input_dim: 6 input_dim: 6
input: "more" input_dim: 2 input_dim: 2 input_dim: 6 input_dim: 6
layers { layer { name: "cat" type: "concat" concat_dim: 1 } bottom: "data" bottom: "more" top: "cat" }
layers { layer { name: "sig" type: "sigmoid" } bottom: "cat" top: "sig" }
layers { layer { name: "tanh" type: "tanh" } bottom: "sig" top: "tanh" }
layers { layer { name: "bnll" type: "bnll" } bottom: "tanh" top: "bnll" }
layers { layer { name: "split" type: "split" } bottom: "bnll" top: "s1" top: "s2" }
layers { layer { name: "flat" type: "flatten" } bottom: "s1" top: "flat" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.3 } bottom: "s2" top: "drop" }
"""),
    B("text: comments, commas, semicolons, odd numbers", "data 1 3 6 6", text="""
# a comment
name: 'odd' input: "da" 'ta' input_shape: < dim: 0x1 dim: 03, dim: 6; dim: 6 >
layer: { name: "c" "1" type: 'Convolution' bottom: "data", top: "c1"; convolution_param < num_output: 2, kernel_size: [3] pad: [1, 1]
  bias_term: 1 engine: 1 > }
layer { name: "p" type: "Power" bottom: "c1" top: "p" power_param { scale: 1e-1f shift: -.5 power: 2.f } } # end
"""),
)  # fmt: skip

BEHAVIOURS = WIRING + SHARING + PHASES + OLD
