"""Fields of forks that are converted: DeepLab's hole, and fields that our Caffe lacks and that change nothing."""

from __future__ import annotations

import pytest

from converters import to_torch, verify
from prototxt_gen import analyse, parse_net
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.layers.vision.convolution import ConvolutionParameter
from prototxt_gen.net.lowering_checks import analyse_for_conversion
from prototxt_gen.passes.to_dialect import to_dialect
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import Weights
from tests.support.caffe_support import caffe_or_skip
from tests.support.sane_weights import sane_weights

INPUT = 'input: "data" input_shape { dim: 2 dim: 3 dim: 11 dim: 9 }\n'


def net(type_: str, params: str) -> str:
    return f'{INPUT}layer {{ name: "it" type: "{type_}" bottom: "data" top: "it" {params} }}'


def convolution(dilation: str, kernel: str = "kernel_size: 3", type_: str = "Convolution") -> str:
    return net(type_, f"convolution_param {{ num_output: 3 {kernel} {dilation} }}")


@pytest.mark.caffe
@pytest.mark.parametrize(
    ("hole", "dilation"),
    [("hole: 2", "dilation: 2"), ("hole_h: 3 hole_w: 2", "dilation: 3 dilation: 2"), ("hole: 1", "")],
)
def test_hole_is_dilation(hole: str, dilation: str) -> None:
    """The effective kernel is k + (k - 1)·(hole - 1), as in im2col_cpu of DeepLab v1."""
    caffe_or_skip()
    import torch

    weights = sane_weights(analyse(parse_net(convolution(hole))))
    images = torch.randn(2, 3, 11, 9)
    ours, plain = (to_torch(parse_net(convolution(text)), weights)(images) for text in (hole, dilation))
    assert torch.equal(ours, plain)
    report = verify(parse_net(convolution(hole)), weights, against=("pycaffe", "torch", "onnx"))
    assert report.verified and report.reference == "pycaffe"


def test_hole_of_im2col_is_dilation() -> None:
    shapes = [analyse(parse_net(convolution(text, type_="Im2col"))).rows[0].tops for text in ("hole: 2", "dilation: 2")]
    assert shapes[0] == shapes[1] == ((2, 27, 7, 5),)


@pytest.mark.parametrize("fields", ["hole: 2 dilation: 2", "hole_h: 2", "hole: 2 hole_h: 2 hole_w: 2"])
def test_contradicting_holes_are_an_error(fields: str) -> None:
    with pytest.raises(NetError, match=r"layer 'it' \(Convolution\): it .*hole"):
        analyse_for_conversion(parse_net(convolution(fields)))


def test_hole_of_deconvolution_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="hole is supported only in Convolution"):
        analyse_for_conversion(parse_net(convolution("hole: 2", type_="Deconvolution")))


def test_hole_is_written_as_dilation_for_a_fork_that_has_it() -> None:
    written = to_dialect(parse_net(convolution("hole: 2")), find_dialect("bvlc")).layers[0].get(ConvolutionParameter)
    assert (written.dilation, written.has("hole")) == ((2,), False)


@pytest.mark.caffe
@pytest.mark.parametrize(
    ("type_", "params"),
    [
        ("BatchNorm", "batch_norm_param { engine: CUDNN }"),
        ("BatchNorm", "batch_norm_param { add_eps_before_sqrt: true }"),
        ("Pooling", "pooling_param { kernel_size: 3 stride: 2 ceil_mode: false dilation: 1 }"),
    ],
)
def test_fields_that_our_caffe_lacks_do_not_lose_the_comparison(type_: str, params: str) -> None:
    caffe_or_skip()
    one = parse_net(net(type_, params))
    analysis = analyse(one)
    weights = sane_weights(analysis) if analysis.rows[0].blobs else Weights({})
    report = verify(one, weights, against=("pycaffe", "torch", "onnx"))
    assert report.verified and report.reference == "pycaffe", report.outcomes


DETECTION = """
input: "loc" input_shape { dim: 1 dim: 8 }
input: "conf" input_shape { dim: 1 dim: 4 }
input: "prior" input_shape { dim: 1 dim: 2 dim: 8 }
layer { name: "d" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "d"
  detection_output_param { num_classes: 2 code_type: CENTER_SIZE FIELD } }
"""


@pytest.mark.parametrize("field", ["clip: true", "clip: 1", "normalized_bbox: false"])
def test_fields_of_opencv_that_change_the_boxes_are_refused(field: str) -> None:
    with pytest.raises(
        UnsupportedError, match=r"layer 'd' \(DetectionOutput\): clip: true and normalized_bbox"
    ) as error:
        analyse_for_conversion(parse_net(DETECTION.replace("FIELD", field)))
    assert "--ignore-field" not in str(error.value)


def test_fields_of_opencv_with_their_defaults_change_nothing() -> None:
    text = DETECTION.replace("FIELD", "clip: false normalized_bbox: true")
    assert analyse_for_conversion(parse_net(text)).complete


def test_repeated_kernel_sizes_are_refused_without_the_advice_to_ignore_them() -> None:
    text = net("Pooling", "pooling_param { kernel_size: 2 kernel_size: 3 stride: 1 }")
    with pytest.raises(NetError, match="kernel_size is given more than once") as error:
        analyse_for_conversion(parse_net(text))
    assert "--ignore-field" not in str(error.value)
