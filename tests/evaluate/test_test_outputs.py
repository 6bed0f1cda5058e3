"""`eval` on nets that are no classifiers prints the outputs of their TEST phase, as `caffe test` does."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from prototxt_gen.analysis import analyse
from prototxt_gen.evaluate.test_outputs import is_classifier
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import write
from tests.support.caffe_support import caffe_or_skip
from tests.support.evaluation_support import call, call_json, random_weights

DATA = 'layer { name: "data" type: "HDF5Data" top: "data" top: "target" '
DATA += 'hdf5_data_param { source: "list.txt" batch_size: 4 } }'
IP = 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }'
REGRESSION = (
    DATA
    + IP
    + (
        'layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }'
        'layer { name: "mean" type: "Reduction" bottom: "ip" top: "mean" reduction_param { operation: MEAN axis: 1 } }'
    )
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder with a regression net, its weights and twelve samples."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["data"] = rng.normal(size=(12, 5)).astype("float32")
        file["target"] = rng.normal(size=(12, 2)).astype("float32")
    (tmp_path / "list.txt").write_text("set.h5\n")
    (tmp_path / "net.prototxt").write_text(REGRESSION)
    analysis = analyse(parse_net(REGRESSION), {"data": (4, 5), "target": (4, 2)})
    write(tmp_path / "net.caffemodel", analysis, random_weights(analysis), find_dialect("bvlc"))
    return tmp_path


@pytest.mark.caffe
@pytest.mark.parametrize("iterations", [None, 2, 5])
def test_outputs_are_those_of_caffe(here: Path, iterations: int | None) -> None:
    caffe = caffe_or_skip()
    words = ("--iterations", iterations) if iterations else ()
    found = call_json("eval", here / "net.prototxt", here / "net.caffemodel", *words)
    net = caffe.Net("net.prototxt", "net.caffemodel", caffe.TEST)
    sums: dict[str, float] = {}
    for _ in range(iterations or 3):
        for name, blob in net.forward().items():
            values = {name: blob} if blob.size == 1 else {f"{name}[{i}]": x for i, x in enumerate(blob.ravel())}
            sums |= {key: sums.get(key, 0.0) + float(value) for key, value in values.items()}
    assert (found["batches"], found["batch"]) == (iterations or 3, 4)
    assert found["outputs"] == pytest.approx(
        {name: total / (iterations or 3) for name, total in sums.items()}, rel=1e-5
    )


def test_text_says_that_it_is_no_classifier(here: Path) -> None:
    done = call("eval", here / "net.prototxt", here / "net.caffemodel")
    assert "is no classifier" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("net.prototxt: 3 batches of 4 in the TEST phase")
    assert lines[1].startswith("loss: ")
    assert len(lines) == 2 + 4


@pytest.mark.parametrize(("layers", "expected"), [
    ('layer { name: "l" type: "SoftmaxWithLoss" bottom: "ip" bottom: "target" top: "l" }', True),
    ('layer { name: "l" type: "Accuracy" bottom: "ip" bottom: "target" top: "l" }', True),
    ('layer { name: "l" type: "SigmoidCrossEntropyLoss" bottom: "ip" bottom: "target" top: "l" }', False),
    ('layer { name: "l" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "l" }', False),
    ('layer { name: "s" type: "Slice" bottom: "target" top: "a" top: "b" } '
     'layer { name: "l" type: "SoftmaxWithLoss" bottom: "ip" bottom: "a" top: "l" }', False),
    ("", True),
])  # fmt: skip
def test_classifiers_are_recognised(layers: str, expected: bool) -> None:
    assert is_classifier(parse_net(DATA + IP + layers)) == expected


def test_scores_for_each_pixel_are_no_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segmentation net, whose label from the data layer is an image: its TEST outputs are printed."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with h5py.File("set.h5", "w") as file:
        file["data"] = rng.normal(size=(8, 3, 5, 6)).astype("float32")
        file["target"] = rng.integers(0, 2, size=(8, 1, 5, 6)).astype("float32")
    Path("list.txt").write_text("set.h5\n")
    net = (
        DATA
        + 'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" '
        + "convolution_param { num_output: 2 kernel_size: 1 } }"
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "target" top: "loss" }'
        + 'layer { name: "accuracy" type: "Accuracy" bottom: "conv" bottom: "target" top: "accuracy" }'
    )
    Path("net.prototxt").write_text(net)
    analysis = analyse(parse_net(net), {"data": (4, 3, 5, 6), "target": (4, 1, 5, 6)})
    write("net.caffemodel", analysis, random_weights(analysis), find_dialect("bvlc"))
    found = call_json("eval", "net.prototxt", "net.caffemodel")
    assert found["outputs"].keys() == {"loss", "accuracy"}
    assert 0 < found["outputs"]["accuracy"] < 1
