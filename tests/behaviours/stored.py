"""Behaviours of weights files: each form in which weights are stored."""

from __future__ import annotations

from tests.behaviours.notation import B

_NET = """conv1: Convolution data > conv1 | convolution_param { num_output: 4 kernel_size: 3 }
bn1: BatchNorm conv1 > conv1
scale1: Scale conv1 > conv1 | scale_param { bias_term: true }
relu1: PReLU conv1 > conv1
up: Deconvolution conv1 > up | convolution_param { num_output: 4 kernel_size: 2 stride: 2 group: 2 }
fc: InnerProduct up > fc | inner_product_param { num_output: 5 }"""
_V1_NET = """conv1: Convolution data > conv1 | convolution_param { num_output: 4 kernel_size: 3 }
up: Deconvolution conv1 > up | convolution_param { num_output: 4 kernel_size: 2 stride: 2 group: 2 }
fc: InnerProduct up > fc | inner_product_param { num_output: 5 }"""


def stored(storage: str, layers: str = _NET, **more: object) -> B:
    return B(f"stored: {storage}", "data 2 3 6 6", layers, storage=storage, **more)  # type: ignore[arg-type]


BEHAVIOURS = (
    stored("caffemodel"),
    stored("h5"),
    stored("legacy dims"),
    stored("double"),
    stored("diffs"),
    stored("half"),
    stored("extra"),
    stored("V1", _V1_NET),
    stored("V0", _V1_NET.replace("up: Deconvolution conv1 > up", "c2: Convolution conv1 > up")),
    stored("missing", refused_here="Caffe would run with the filler's values, without a warning"),
    B("stored: two layers of one name", "data 2 6", storage="diffs", refused_here="Caffe loads the first only",
      layers="""f: InnerProduct data > a | inner_product_param { num_output: 6 }
      f: InnerProduct a > b | inner_product_param { num_output: 6 }"""),
    stored("one too many", refused=True),
    stored("transposed", refused=True),
    stored("empty copy", refused=True),
    stored("odd copy", refused=True),
    stored("needless", _NET + "\nrelu2: ReLU fc > fc", refused=True),
    B("stored: shared within one layer, its two blobs differ", "data 2 4", storage="last differs",
      layers='s: Scale data > s | scale_param { bias_term: true } param { name: "w" } param { name: "w" }'),
    B("stored: shared by three, the last counts", "data 2 4", storage="last differs", layers="""
      a: PReLU data > a | param { name: "w" }
      b: PReLU a > b | param { name: "w" }
      c: PReLU b > c | param { name: "w" }"""),
    B("stored: shared weights", "a 2 5; b 2 5", storage="h5", layers="""
      fa: InnerProduct a > fa | inner_product_param { num_output: 3 } param { name: "w" } param { name: "b" }
      fb: InnerProduct b > fb | inner_product_param { num_output: 3 } param { name: "w" } param { name: "b" }"""),
    B("stored: inner product in legacy dims", "data 3 4", storage="legacy dims",
      layers="fc: InnerProduct data > fc | inner_product_param { num_output: 1 }"),
    B("stored: transposed inner product in legacy dims", "data 3 4", storage="legacy dims",
      layers="fc: InnerProduct data > fc | inner_product_param { num_output: 5 transpose: true }"),
    B("stored: one-axis convolution", "data 2 3 9", storage="h5",
      layers="c: Convolution data > c | convolution_param { num_output: 4 kernel_size: 3 }"),
    B("stored: lstm in hdf5", "data 4 2 5; cont 4 2", storage="h5",
      layers="rec: LSTM data cont > rec | recurrent_param { num_output: 3 }"),
)  # fmt: skip
