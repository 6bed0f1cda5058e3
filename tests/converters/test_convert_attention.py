"""The four Residual Attention nets with weights written by real Caffe: PyTorch and ONNX compute the same blobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters import read_net_with_weights
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.verify import verify
from prototxt_gen import analyse, build, net_text
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import as_variance, write
from tests.support.caffe_support import caffe_or_skip
from tests.support.sane_weights import sane_weights

pytestmark = pytest.mark.slow

SIZE = 96
"""Image height and width. The published nets use 224; the pooling at the end is adapted."""


@pytest.mark.caffe
@pytest.mark.parametrize("name", ["attention-56", "attention-92", "attentionnext-56", "attentionnext-92"])
def test_every_blob_equals_that_of_caffe(name: str, tmp_path: Path) -> None:
    caffe = caffe_or_skip()
    net = build(name, input_size=SIZE)
    analysis = analyse(net)
    weights = sane_weights(analysis)
    prototxt, caffemodel = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(net_text(net))
    caffe_net = caffe.Net(str(prototxt), caffe.TEST)
    for row in analysis.rows:
        for blob, role in zip(caffe_net.params.get(row.layer.name, ()), row.blobs, strict=False):
            blob.data[...] = weights.of(row.layer.name)[role].reshape(blob.data.shape)
    caffe_net.save(str(caffemodel))
    model = read_net_with_weights(prototxt, caffemodel)
    assert "inverse_std" in model.weights.of("conv1/bn"), "the fork is detected from its field numbers"
    report = verify(model, seeded_inputs(model), ("pycaffe", "torch", "onnx"))
    assert report.reference == "pycaffe" and report.verified
    assert report.worst <= 1e-4 and not any(c.excused for o in report.compared for c in o.comparisons)


@pytest.mark.caffe
@pytest.mark.parametrize("name", ["attention-56", "attentionnext-56"])
@pytest.mark.parametrize(
    ("fork", "statistic"),
    [("buptwangfei", "inverse_std"), ("happynear", "variance"), ("yjxiong", "variance"), ("pspnet", "variance")],
)
def test_weights_of_each_fork_are_read(fork: str, statistic: str, name: str, tmp_path: Path) -> None:
    """Weights in every fork's field numbers, with the BN statistic of the fork.

    For happynear it has to be given, as its two engines differ.
    """
    caffe_or_skip()
    net = build(name, input_size=SIZE)
    analysis = analyse(net)
    weights = sane_weights(analysis)
    converted = as_variance(weights, analysis) if statistic == "variance" else weights
    prototxt, caffemodel = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(net_text(net))
    write(caffemodel, analysis, converted, find_dialect(fork))
    bn_statistic = None if find_dialect(fork).bn_statistic else statistic
    model = read_net_with_weights(prototxt, caffemodel, bn_statistic=bn_statistic)
    assert statistic in model.weights.of("conv1/bn")
    report = verify(model, seeded_inputs(model), ("pycaffe", "torch", "onnx"))
    assert report.reference == "pycaffe" and report.verified
    assert report.worst <= 1e-4 and not any(c.excused for o in report.compared for c in o.comparisons)
