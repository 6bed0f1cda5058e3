"""The four Residual Attention nets, weights written by real Caffe: every blob in PyTorch and ONNX as Caffe has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters import read_subject
from converters.verification.comparison_inputs import seeded
from converters.verification.verify import verify
from prototxt_gen import analyse, build, net_text
from prototxt_gen.schema.dialect import dialect
from prototxt_gen.weights import as_variance, write
from tests.support.caffe_support import caffe_or_skip
from tests.support.sane_weights import sane_weights

SIZE = 96
"""The published nets take 224 pixels; their heads' pooling follows."""


@pytest.mark.caffe
@pytest.mark.parametrize("name", ["attention-56", "attention-92", "attentionnext-56", "attentionnext-92"])
def test_every_blob_is_caffes(name: str, tmp_path: Path) -> None:
    caffe = caffe_or_skip()
    net = build(name, input_size=SIZE)
    analysis = analyse(net)
    weights = sane_weights(analysis)
    prototxt, model = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(net_text(net))
    made = caffe.Net(str(prototxt), caffe.TEST)
    for row in analysis.rows:
        for blob, role in zip(made.params.get(row.layer.name, ()), row.blobs, strict=False):
            blob.data[...] = weights.of(row.layer.name)[role].reshape(blob.data.shape)
    made.save(str(model))
    one = read_subject(prototxt, model)
    assert "inverse_std" in one.weights.of("conv1/bn"), "the fork is told by its numbers"
    found = verify(one, seeded(one), ("pycaffe", "torch", "onnx"))
    assert found.reference == "pycaffe" and found.verified
    assert found.worst <= 1e-4 and not any(c.excused for o in found.compared for c in o.comparisons)


@pytest.mark.caffe
@pytest.mark.parametrize("name", ["attention-56", "attentionnext-56"])
@pytest.mark.parametrize(
    ("fork", "statistic"),
    [("buptwangfei", "inverse_std"), ("happynear", "variance"), ("yjxiong", "variance"), ("pspnet", "variance")],
)
def test_each_forks_numbers_and_meaning(fork: str, statistic: str, name: str, tmp_path: Path) -> None:
    """In every fork's field numbers, BN's fourth blob in its meaning; happynear's engines differ, and so it is told."""
    caffe_or_skip()
    net = build(name, input_size=SIZE)
    analysis = analyse(net)
    weights = sane_weights(analysis)
    meant = as_variance(weights, analysis) if statistic == "variance" else weights
    prototxt, model = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(net_text(net))
    write(model, analysis, meant, dialect(fork))
    one = read_subject(prototxt, model, bn_statistic=None if dialect(fork).bn_statistic else statistic)
    assert statistic in one.weights.of("conv1/bn")
    found = verify(one, seeded(one), ("pycaffe", "torch", "onnx"))
    assert found.reference == "pycaffe" and found.verified
    assert found.worst <= 1e-4 and not any(c.excused for o in found.compared for c in o.comparisons)
