"""Unusual nets: names that are Python keywords, weight files without shared blobs, two features in one layer."""
# ruff: noqa: E501 (tables: a net a line)

from __future__ import annotations

from prototxt_gen.layers.example import labels, literal
from tests.behaviours.notation import B

_FC = "inner_product_param { num_output: 4 }"
_RECURRENT = "recurrent_param { num_output: 4 }"
_STEPS = {"cont": literal([[1, 0], [1, 1], [0, 1]])}


def scope(name: str) -> B:
    """Layers that follow one another below one name: a class of its own where the net is written as Python."""
    return B(
        f"names: a block called {name}",
        "data 2 4",
        f"""{name}/a: InnerProduct data > {name}/a | {_FC}
        {name}/b: InnerProduct {name}/a > {name}/b | {_FC}
        {name}/r: PReLU {name}/b > {name}/r
        z: InnerProduct {name}/r > z | {_FC}""",
    )


def named(name: str) -> B:
    return B(
        f"names: a layer and a blob called {name}",
        "data 2 3 4 4",
        f"{name}: Convolution data > {name} | convolution_param {{ num_output: 3 kernel_size: 1 }}\nact: PReLU {name} > {name}",
    )


NAMES = (
    *map(scope, ("none", "path", "f", "net", "steps", "class", "x²")),
    *map(named, ("class", "steps", "forward", "numbers", "__class__", "None")),
    B("names: input, layers and blobs of Python's words", "lambda 2 4",
      f"class: InnerProduct lambda > def | {_FC}\nself: ReLU def > def\nforward: TanH def > return"),
    B("names: alike but for a sign", "a-b 2 4",
      f"f/1: InnerProduct a-b > f/1 | {_FC}\nf_1: InnerProduct a-b > f_1 | {_FC}\nf.1: InnerProduct a-b > f.1 | {_FC}\ne: Eltwise f/1 f_1 f.1 > e"),
)  # fmt: skip

SHARED = (
    *(B(f"stored: {what} shared, {storage}", "a 2 4; b 2 4", storage=storage,
        layers=f"f: InnerProduct a > f | {_FC} {param}\ng: InnerProduct b > g | {_FC} {param}\ne: Eltwise f g > e")
      for what, param in (("weights", 'param { name: "w" }'), ("biases", 'param { } param { name: "b" }'))
      for storage in ("h5", "V1", "legacy dims")),
    B("stored: lstm with shared hidden weights in hdf5", "data 3 2 4; cont 3 2", storage="h5", draws=_STEPS,
      layers=f"""a: LSTM data cont > a | {_RECURRENT} param {{ }} param {{ }} param {{ name: "h" }}
      b: LSTM a cont > b | {_RECURRENT} param {{ }} param {{ }} param {{ name: "h" }}"""),
    B("stored: Scale with the bias of a convolution, hdf5", "a 2 3 4 4", storage="h5",
      layers="""f: Convolution a > f | convolution_param { num_output: 3 kernel_size: 1 } param { } param { name: "b" }
      g: Scale f > g | scale_param { bias_term: true } param { name: "b" }"""),
    B("sharing: the mean of a BatchNorm alone", "a 2 3 4 4; b 2 3 4 4", refused_here="their variances are apart, and PyTorch's statistics go together",
      layers='f: BatchNorm a > f | param { name: "m" lr_mult: 0 }\ng: BatchNorm b > g | param { name: "m" lr_mult: 0 }'),
    B("sharing: a Convolution and a Deconvolution", "data 2 3 5 5",
      """a: Convolution data > a | convolution_param { num_output: 3 kernel_size: 3 bias_term: false } param { name: "w" }
      b: Deconvolution a > b | convolution_param { num_output: 3 kernel_size: 3 bias_term: false } param { name: "w" }"""),
    B("sharing: Embed and InnerProduct", "data 3", draws={"data": labels(5)},
      layers="""e: Embed data > e | embed_param { input_dim: 5 num_output: 4 bias_term: false } param { name: "w" }
      f: InnerProduct e > f | inner_product_param { num_output: 5 bias_term: false } param { name: "w" }"""),
    B("sharing: both blobs of one layer", "data 2 4",
      's: Scale data > s | scale_param { bias_term: true } param { name: "w" } param { name: "w" }'),
    B("sharing: Scale, Bias and PReLU", "data 2 4 3",
      'f: Scale data > f | param { name: "w" }\ng: Bias f > g | param { name: "w" }\nh: PReLU g > h | param { name: "w" }'),
)  # fmt: skip

STATES = (
    B("phase: the net's own level gives way", "data 2 3",
      """state { phase: TEST level: 3 }
      a: Power data > x | power_param { shift: 1 } include { min_level: 2 }
      b: Power data > x | power_param { shift: 2 } include { max_level: 1 }"""),
    B("phase: the net's own stage beside that asked for", "data 2 3", stages=("asked",),
      layers="""state { stage: "own" }
      a: Power data > x | power_param { shift: 1 } include { stage: "own" stage: "asked" }
      b: Power data > x | power_param { shift: 5 } exclude { stage: "own" stage: "asked" }"""),
    B("phase: the net's own phase gives way", "data 2 3",
      """state { phase: TRAIN }
      a: Power data > x | power_param { shift: 1 } include { phase: TEST }
      b: Power data > x | power_param { shift: 5 } include { phase: TRAIN }"""),
)  # fmt: skip

NUMBERS = (
    B("scalar: Power of a number", "data", "p: Power data > p | power_param { power: 2 shift: 1 }"),
    B("scalar: Eltwise of numbers", "a; b", "e: Eltwise a b > e"),
    B("scalar: to a matrix and on", "data",
      f"p: ReLU data > p\nr: Reshape p > r | reshape_param {{ shape {{ dim: 1 dim: 1 }} }}\nf: InnerProduct r > f | {_FC}"),
    B("lrn: beta 0", "data 2 3 2 2", "n: LRN data > n | lrn_param { beta: 0 alpha: 3 }"),
    B("lrn: beta below 0", "data 2 4 3 3", "n: LRN data > n | lrn_param { beta: -0.5 }"),
    B("lrn: alpha 0", "data 2 4 3 3", "n: LRN data > n | lrn_param { alpha: 0 k: 2 }"),
    B("lrn: alpha below 0", "data 2 3 2 2", "n: LRN data > n | lrn_param { alpha: -0.01 k: 2 local_size: 3 }"),
    B("filter: one blob, and layers after it", "a 4 5; k 4", draws={"k": literal([1, 0, 1, 1])},
      layers=f"f: Filter a k > x\nr: ReLU x > x\ni: InnerProduct x > i | {_FC}"),
    B("filter: nothing kept", "a 3 2; k 3", "f: Filter a k > x", draws={"k": literal([0, 0, 0])}),
    B("lstm: cont between 0 and 1", "data 3 2 4; cont 3 2", f"r: LSTM data cont > o | {_RECURRENT}",
      draws={"cont": literal([[0, 0.5], [1, 0.25], [1, 1]])}),
    B("lstm: static input, states in and out", "data 3 2 4; cont 3 2; x 2 3; h 1 2 4; c 1 2 4", draws=_STEPS,
      layers="r: LSTM data cont x h c > o h1 c1 | recurrent_param { num_output: 4 expose_hidden: true }"),
    B("lstm: its states taken on by another", "data 3 2 4; cont 3 2; h 1 2 4; c 1 2 4; more 3 2 4", draws=_STEPS,
      layers="""a: LSTM data cont h c > a h1 c1 | recurrent_param { num_output: 4 expose_hidden: true }
      b: LSTM more cont h1 c1 > b h2 c2 | recurrent_param { num_output: 4 expose_hidden: true }"""),
    B("pooling: kernel, stride and pad, one of each kind", "data 2 2 9 7",
      "p: Pooling data > p | pooling_param { kernel_h: 2 kernel_w: 5 stride: 2 pad_h: 1 pad_w: 3 pool: AVE }"),
    B("pooling: windows beyond the image", "data 1 1 8 8", "p: Pooling data > p | pooling_param { kernel_size: 2 stride: 5 pool: AVE }"),
    B("deconvolution: dilation, group, oblong pad", "data 2 4 5 7",
      "c: Deconvolution data > c | convolution_param { num_output: 6 kernel_size: 3 dilation: 2 group: 2 pad_h: 1 pad_w: 2 stride: 2 }"),
    B("deconvolution: three axes, a list of everything", "data 1 2 3 2 4",
      "c: Deconvolution data > c | convolution_param { num_output: 4 kernel_size: 2 kernel_size: 3 kernel_size: 1 stride: 1 stride: 2 stride: 3 group: 2 bias_term: false }"),
    B("convolution: three bottoms, BatchNorm on one top", "a 2 3 6 6; b 2 3 6 6; c 2 3 6 6",
      """k: Convolution a b c > x y z | convolution_param { num_output: 2 kernel_size: 3 }
      n: BatchNorm x > x
      s: Scale x > x | scale_param { bias_term: true }
      e: Eltwise x y z > e"""),
    B("batchnorm: after channels at axis 2", "data 2 3 4 6 5",
      """a: Convolution data > a | convolution_param { num_output: 4 kernel_size: 3 axis: 2 }
      b: BatchNorm a > b
      s: Scale b > s | scale_param { bias_term: true }"""),
    B("batchnorm: three in a row, scales between", "data 2 3 5 6",
      """a: Convolution data > a | convolution_param { num_output: 4 kernel_size: 3 }
      b1: BatchNorm a > a
      b2: BatchNorm a > a
      s1: Scale a > a | scale_param { bias_term: true }
      b3: BatchNorm a > a
      s2: Scale a > a"""),
    B("batchnorm: Slice between the convolution and it", "data 2 3 5 6",
      """a: Convolution data > a | convolution_param { num_output: 4 kernel_size: 3 }
      s: Slice a > r q
      b: BatchNorm r > b
      g: Scale b > g | scale_param { bias_term: true }
      e: Eltwise q g > e"""),
)  # fmt: skip

BEHAVIOURS = NAMES + SHARED + STATES + NUMBERS
