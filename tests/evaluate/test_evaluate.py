"""`eval`: every runtime predicts the same classes, and the accuracy equals that of the net's Accuracy layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from converters import to_onnx, to_torch
from converters.common.net_with_weights import read_net_with_weights
from prototxt_gen import layers
from prototxt_gen.analysis import analyse, resized_input_shapes
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.make import make
from prototxt_gen.evaluate.scores import evaluation_of_scores
from prototxt_gen.ir import Layer, Value
from prototxt_gen.models import build
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.passes.global_pooling import with_global_pooling
from prototxt_gen.runtime.torch_net import TorchNet
from prototxt_gen.schema.caffe_proto import LayerParameter
from prototxt_gen.train.data_layer_batches import batches_of
from tests.support.caffe_support import caffe_or_skip
from tests.support.evaluation_support import call, call_json, npz, random_weights, tiny, train_val

Array = np.ndarray[Any, Any]
OPTIONS = ("--mean", "10,20,30", "--scale", "0.02")


@given(
    arrays.arrays("float32", (6, 9), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])),
    arrays.arrays("int64", (6,), elements=st.integers(0, 8)),
    st.integers(1, 8),
)
@settings(max_examples=60, deadline=None)
def test_top_k_equals_the_accuracy_layer_also_for_ties(scores: Array, labels: Array, k: int) -> None:
    layer_type = layers.all_layer_types()["Accuracy"]  # layer types add their parameters to the schema
    layer = Layer("a", "Accuracy", (Value("x"), Value("y")), (Value("z"),), LayerParameter(accuracy_param={"top_k": k}))
    module = layer_type.torch(layer, [(6, 9), (6,)])
    expected = float(module(torch.from_numpy(scores), torch.from_numpy(labels.astype("float32"))))
    assert evaluation_of_scores("x", scores, labels).top_accuracy(k) == pytest.approx(expected)


def test_confusion_counts_labels_against_predictions() -> None:
    scores = np.eye(3, dtype="float32")[[0, 1, 1, 2, 0]]
    found = evaluation_of_scores("x", scores, np.array([0, 1, 2, 2, 2]))
    np.testing.assert_array_equal(found.confusion(), [[1, 0, 0], [0, 1, 0], [1, 1, 1]])
    assert found.top_accuracy(1) == pytest.approx(3 / 5)


def test_a_label_that_is_not_a_class_is_an_error() -> None:
    with pytest.raises(DataError, match="sample 1 has label 3; the net has classes 0 to 2"):
        evaluation_of_scores("x", np.zeros((2, 3), "float32"), np.array([0, 3]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with deploy.prototxt, net.caffemodel and set.npz."""
    folder = tmp_path_factory.mktemp("net")
    tiny(folder)
    npz(folder / "set.npz")
    return folder


def _by_hand(folder: Path) -> tuple[Array, Array]:
    """Return scores and labels, by the simplest means."""
    net = parse_net((folder / "deploy.prototxt").read_text())
    module = TorchNet(analyse(net), random_weights(analyse(net)))
    with np.load(folder / "set.npz") as stored:
        pixels, labels = stored["x"].astype("float32"), stored["y"]
    fed = (pixels - np.array([10, 20, 30], "float32")) * np.float32(0.02)
    with torch.no_grad():
        return module(torch.from_numpy(fed.transpose(0, 3, 1, 2).copy())).numpy(), labels


def test_accuracy_is_the_share_of_correct_images(place: Path) -> None:
    scores, labels = _by_hand(place)
    found = call_json(
        "eval", place / "deploy.prototxt", place / "net.caffemodel", "--data", place / "set.npz", *OPTIONS
    )
    assert found["results"][0]["top1"] == pytest.approx((scores.argmax(1) == labels).mean())
    order = np.argsort(-scores, axis=1)[:, :5]
    assert found["results"][0]["top5"] == pytest.approx(
        np.mean([y in row for y, row in zip(labels, order, strict=True)])
    )
    assert (found["images"], found["classes"], found["input"]) == (30, 7, [3, 12, 12])
    assert found["preprocessing"] == "1 crop of 12x12, channels as stored, (pixel - 10, 20, 30) * 0.02"
    assert np.array(found["confusion"]).sum() == 30
    assert len(set(scores.argmax(1).tolist())) > 2  # the net tells images apart, so equality means something


def test_runtimes_agree_image_by_image(place: Path) -> None:
    files = (place / "deploy.prototxt", place / "net.caffemodel", "--data", place / "set.npz", *OPTIONS)
    for more in ((), ("--crops", "10", "--resize", "15"), ("--batch", "7")):
        found = call_json("eval", *files, "--backend", "torch", "--backend", "onnx", *more)["results"]
        assert [one["backend"] for one in found] == ["torch", "onnx"]
        assert found[0]["top1"] == found[1]["top1"]
        assert found[1]["differing"] == 0


@pytest.mark.caffe
def test_real_caffe_agrees(place: Path) -> None:
    caffe_or_skip()
    files = (place / "deploy.prototxt", place / "net.caffemodel", "--data", place / "set.npz", *OPTIONS)
    found = call_json("eval", *files, "--backend", "torch", "--backend", "pycaffe", "--batch", "8")["results"]
    assert found[1] | {"images_per_second": 0, "backend": ""} == found[0] | {"images_per_second": 0, "backend": ""}


def test_ten_crops_are_averaged(place: Path) -> None:
    from prototxt_gen.data.data_set_reader import open_dataset
    from prototxt_gen.evaluate.image_preprocessing import CaffePreprocessor
    from prototxt_gen.evaluate.predictors import make_predictor
    from prototxt_gen.evaluate.scores import EvalSamples, evaluate

    caffe_model = read_net_with_weights(place / "deploy.prototxt", place / "net.caffemodel")
    samples = EvalSamples(
        open_dataset(place / "set.npz"), CaffePreprocessor((12, 12), shorter=14, crops=10), (3, 12, 12)
    )
    predict = make_predictor("torch", caffe_model)
    found = evaluate(predict, samples, batch=25)
    means = np.stack([predict(samples.sample(index)[0]).mean(axis=0) for index in range(len(samples))])
    np.testing.assert_array_equal(found.predicted, means.argmax(axis=1))
    np.testing.assert_allclose(found.scores, means.max(axis=1), rtol=1e-5)


def test_a_train_val_is_evaluated_with_the_preprocessing_of_its_test_layer(tmp_path: Path) -> None:
    npz(tmp_path / "set.npz", 24, 16)
    made = make(tmp_path / "set.npz", tmp_path / "lmdb")
    layer = (
        'layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } '
        "transform_param { crop_size: 12 scale: 0.02 mean_value: 100 } "
        f'data_param {{ source: "{made.path.name}" batch_size: 24 backend: LMDB }} }}'
    )
    net = tmp_path / "train_val.prototxt"
    net.write_text(train_val(layer))
    _, weights = tiny(tmp_path)
    found = call_json("eval", net, weights)
    test = parse_net(net.read_text()).at("TEST")
    data, labels = batches_of(test.layers[0], "TEST", 0, lambda name: tmp_path / name).make(0)
    analysis = analyse(test, {"data": data.shape, "label": labels.shape})
    with torch.no_grad():
        blobs = TorchNet(analysis, random_weights(analysis)).run(
            {"data": torch.from_numpy(data), "label": torch.from_numpy(labels)}
        )
    told = {value.blob: float(blob) for value, blob in blobs.items() if value.blob.startswith("accuracy")}
    result = found["results"][0]
    assert told == pytest.approx({"accuracy/top-1": result["top1"], "accuracy/top-5": result["top5"]})
    assert found["images"] == 24
    assert call_json("eval", net, weights, "--data", tmp_path / "set.npz")["results"][0]["top1"] == result["top1"]


def test_another_input_size_works_with_global_pooling(place: Path, tmp_path: Path) -> None:
    npz(tmp_path / "large.npz", 20, 20)
    files = ("eval", place / "deploy.prototxt", place / "net.caffemodel", "--data", tmp_path / "large.npz")
    found = call_json(*files, "--input-size", "20", "--backend", "torch", "--backend", "onnx")
    assert found["input"] == [3, 20, 20]
    assert found["results"][1]["differing"] == 0


@pytest.mark.parametrize("name", ["attention-56-cifar", "attentionnext-56"])
def test_a_net_at_another_size_equals_the_net_built_for_that_size(name: str) -> None:
    net = build(name, classes=5)
    grown = with_global_pooling(net)
    size = net.inputs[0].known_shape[2] + 32
    changed = [one.name for one, other in zip(net.layers, grown.layers, strict=True) if one != other]
    assert changed == ["ave_pool"]
    by_pass, built = (
        analyse(grown, resized_input_shapes(grown, (size,))),
        analyse(build(name, classes=5, input_size=size)),
    )
    assert [row.tops for row in by_pass.rows] == [row.tops for row in built.rows]
    assert analyse(grown).macs == analyse(net).macs


def test_converted_models_are_evaluated_without_a_prototxt(place: Path, tmp_path: Path) -> None:
    from converters.common.preprocessing import Preprocessing

    files = (place / "deploy.prototxt", place / "net.caffemodel")
    numbers = Preprocessing((10.0, 20.0, 30.0), 0.02)
    to_onnx(*files, tmp_path / "model.onnx", preprocessing=numbers)
    to_torch(*files, tmp_path / "folder", preprocessing=numbers)
    to_torch(*files, tmp_path / "model.pt2", format="pt2", preprocessing=numbers)
    expected = call_json("eval", *files, "--data", place / "set.npz", *OPTIONS)
    for name in ("model.onnx", "folder", "model.pt2"):
        found = call_json("eval", tmp_path / name, "--data", place / "set.npz")
        assert found["confusion"] == expected["confusion"], name
        assert found["preprocessing"] == expected["preprocessing"], name
    plain = call_json("eval", tmp_path / "model.onnx", "--data", place / "set.npz", "--mean", "0", "--scale", "1")
    assert plain["preprocessing"].endswith("(pixel - 0) * 1")


def test_the_last_batch_is_padded_for_a_fixed_batch_size(place: Path, tmp_path: Path) -> None:
    import onnx

    from prototxt_gen.evaluate.predictors import OnnxPredictor

    model = to_onnx(place / "deploy.prototxt", place / "net.caffemodel")
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "fixed.onnx")
    to_onnx(place / "deploy.prototxt", place / "net.caffemodel", tmp_path / "open.onnx", verify=False)
    batch = np.random.default_rng(0).standard_normal((10, 3, 12, 12)).astype("float32")
    fixed, free = OnnxPredictor(tmp_path / "fixed.onnx"), OnnxPredictor(tmp_path / "open.onnx")
    assert (fixed.fixed_batch, free.fixed_batch) == (4, 0)
    np.testing.assert_allclose(fixed(batch), free(batch), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("deploy.prototxt",), "a prototxt needs weights"),
        (("deploy.prototxt", "net.caffemodel"), "the net names none for its TEST phase; give --data"),
        (("deploy.prototxt", "net.caffemodel", "--data", "none"), "none does not exist"),
        (("deploy.prototxt", "net.caffemodel", "--data", "grey.npz"), "sample 0 is 1x12x12; the net needs 3 channels"),
        (("deploy.prototxt", "net.caffemodel", "--data", "big.npz", "--resize", "20x10"), "a crop of 12x12 is larger"),
        (("deploy.prototxt", "net.caffemodel", "--data", "many.npz"), "the net has classes 0 to 6"),
        (("deploy.prototxt", "net.caffemodel", "--data", "set.npz", "--top", "probs"), "did you mean 'prob'"),
        (("deploy.prototxt", "net.caffemodel", "--data", "set.npz", "--mean", "1,2"), "2 mean values for 3 channels"),
        (("none.onnx", "--data", "set.npz"), "none.onnx does not exist"),
    ],
)
def test_errors_are_one_sentence(place: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, words: str) -> None:
    monkeypatch.chdir(place)
    npz(place / "grey.npz", 3, channels=1)
    npz(place / "big.npz", 3, 16)
    npz(place / "many.npz", 30, classes=40)
    done = call("eval", *arguments)
    assert done.exit_code == 1
    assert words in done.output
    assert done.output.splitlines()[-1].startswith("error: ")


def test_scores_that_are_not_finite_are_refused(place: Path, tmp_path: Path) -> None:
    found = call(
        "eval", place / "deploy.prototxt", place / "net.caffemodel", "--data", place / "set.npz", "--scale", "1e36"
    )
    assert found.exit_code == 1
    assert "the scores are not finite" in found.output


def test_the_table_names_classes(place: Path, tmp_path: Path) -> None:
    made = make(place / "set.npz", tmp_path / "lmdb")
    (made.path / "labels.txt").write_text("".join(f"kind {label}\n" for label in range(7)))
    done = call("eval", place / "deploy.prototxt", place / "net.caffemodel", "--data", made.path, *OPTIONS)
    assert done.exit_code == 0
    assert "kind 3" in done.output
    assert "torch" in done.output
