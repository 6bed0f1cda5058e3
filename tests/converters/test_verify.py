"""Verification: a correct net passes, and the first wrong layer of a wrong one is found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from converters import read_net_with_weights
from converters.verification import verification_report
from converters.verification.blob_comparison import MAX_ACCUMULATED_ROUNDING, difference
from converters.verification.comparison_inputs import inputs_from_file, seeded_inputs
from converters.verification.runtimes import RUNTIMES, run_onnx_export, run_torch
from converters.verification.verification_report import NotVerifiedError
from converters.verification.verify import verify
from prototxt_gen import analyse, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.net.render import net_text
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import Weights, write
from tests.support.caffe_support import caffe_or_skip
from tests.support.sane_weights import sane_weights

Array = np.ndarray[Any, Any]
NET = """name: "small"
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def model_of(text: str = NET) -> Any:
    net = parse_net(text, "small.prototxt").at("TEST")
    return read_net_with_weights(net, sane_weights(analyse(net)))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    net = parse_net(NET, "small.prototxt").at("TEST")
    analysis = analyse(net)
    prototxt, caffemodel = tmp_path / "small.prototxt", tmp_path / "small.caffemodel"
    prototxt.write_text(net_text(net))
    write(caffemodel, analysis, sane_weights(analysis), find_dialect("bvlc"))
    return prototxt, caffemodel


def test_runtimes_agree_on_a_correct_net() -> None:
    model = model_of()
    report = verify(model, seeded_inputs(model), ("torch", "onnx"))
    assert report.verified
    assert [c.blob for c in report.compared[0].comparisons] == ["conv", "ip", "prob"]


@pytest.mark.parametrize("layer", ["conv", "ip"])
def test_the_first_wrong_layer_is_named(layer: str) -> None:
    model = model_of()
    blobs = {name: dict(roles) for name, roles in model.weights.blobs.items()}
    blobs[layer]["weight"] = blobs[layer]["weight"] * 1.01
    other = replace(model, weights=Weights(blobs))
    report = verify(model, seeded_inputs(model), ("torch",), {"wrong": lambda _, inputs: run_torch(other, inputs)})
    assert not report.verified
    first = report.compared[0].first_diverging
    assert first is not None and first.blob == layer
    assert f"layer '{'relu' if layer == 'conv' else 'ip'}'" in "\n".join(verification_report.summary_sentences(report))


def test_a_missing_runtime_does_not_count_as_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Any, __: Mapping[str, Array]) -> dict[str, Array]:
        raise RuntimeMissingError("it is not installed")

    monkeypatch.setitem(RUNTIMES, "onnx", missing)
    model = model_of()
    report = verify(model, seeded_inputs(model), ("torch", "onnx"))
    assert not report.verified
    assert [o.state for o in report.outcomes] == ["ran", "not run"]
    assert "nothing to compare" in "\n".join(verification_report.summary_sentences(report))


def test_a_required_runtime_that_fails_does_not_count_as_verified() -> None:
    def refuses(_: Any, __: Mapping[str, Array]) -> dict[str, Array]:
        raise PrototxtGenError("it does not load")

    model = model_of()
    report = verify(model, seeded_inputs(model), ("torch", "onnx"), {"model.onnx": refuses})
    assert not report.verified
    assert "does not load" in str(NotVerifiedError(report))


def test_an_unknown_runtime_is_an_error() -> None:
    with pytest.raises(PrototxtGenError, match="there is no runtime 'tflite'"):
        verify(model_of(), {}, ("tflite",))


def test_a_near_tie_is_excused() -> None:
    """If two scores differ by less than rounding, either may be the largest, and the layer is right."""
    model = model_of(
        'input: "data" input_shape { dim: 1 dim: 3 }'
        'layer { name: "p" type: "Power" bottom: "data" top: "p" power_param { scale: 2 } }'
        'layer { name: "a" type: "ArgMax" bottom: "p" top: "a" }'
    )
    inputs = {"data": np.asarray([[1.0, 1.0, 0.0]], "float32")}
    nudged = {"data": np.asarray([[1.000001, 1.0, 0.0]], "float32")}
    report = verify(model, inputs, ("torch",), {"nudged": lambda s, _: run_torch(s, nudged)})
    (argmax,) = [c for c in report.compared[0].comparisons if c.blob == "a"]
    assert argmax.excused and "near tie" in argmax.note
    wrong = verify(model, inputs, ("torch",), {"wrong": lambda s, i: run_torch(s, i) | {"a": np.full((1, 1, 1), 2.0)}})
    assert not wrong.verified


def test_a_wrong_layer_below_a_near_tie_is_not_excused() -> None:
    """If a runtime returns the layer's bottom, a wrong top cannot be excused by a near tie above."""
    text = (
        'input: "data" input_shape { dim: 1 dim: 2 }'
        'layer { name: "a" type: "ArgMax" bottom: "data" top: "a" }'
        'layer { name: "p" type: "Power" bottom: "a" top: "p" power_param { scale: 3 } }'
    )
    model = read_net_with_weights(parse_net(text), Weights({}))
    inputs = {"data": np.array([[1.0, 1.0 - 1e-7]], "float32")}

    def tied(factor: float) -> Any:
        nearly = {"data": np.array([[1.0 - 1e-7, 1.0]], "float32")}
        return lambda s, _: (blobs := run_torch(s, nearly)) | {"p": blobs["a"] * np.float32(factor)}

    right = verify(model, inputs, ("torch",), {"other": tied(3)})
    assert right.verified and all(c.excused for c in right.compared[0].comparisons)
    assert not verify(model, inputs, ("torch",), {"other": tied(4)}).verified


def test_a_large_difference_is_not_excused_as_rounding() -> None:
    model = model_of()
    inputs = seeded_inputs(model)
    other = {name: array + 0.5 for name, array in inputs.items()}
    report = verify(model, inputs, ("torch",), {"other": lambda s, _: run_torch(s, other)})
    assert not report.verified


def test_a_difference_that_rounding_alone_causes_is_excused() -> None:
    """Near one million, single precision has steps of 1/16, so another order of operations gives such differences."""
    text = (
        'input: "data" input_shape { dim: 1 dim: 8 }'
        'layer { name: "up" type: "Power" bottom: "data" top: "up" power_param { shift: 1e6 } }'
        'layer { name: "down" type: "Power" bottom: "up" top: "down" power_param { shift: -1e6 } }'
    )
    model = read_net_with_weights(parse_net(text), None)
    inputs = {"data": np.linspace(-1, 1, 8, dtype="float32").reshape(1, 8) + np.float32(0.013)}

    def other(fault: float) -> Any:
        return lambda s, i: {"down": run_torch(s, i, double=True)["down"] + fault}

    (outcome,) = verify(model, inputs, ("torch",), {"other": other(0)}).compared
    assert outcome.comparisons[0].error > MAX_ACCUMULATED_ROUNDING
    assert outcome.ok and "rounding alone changes it by" in outcome.comparisons[0].note
    assert not verify(model, inputs, ("torch",), {"other": other(0.7)}).verified


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, np.nan], [1.0, 2.0], False),
        ([1.0, np.inf], [1.0, np.inf], True),
        ([1.0, np.inf], [1.0, -np.inf], False),
        ([0.0, 0.0], [0.0, 0.0], True),
        ([0.0, 0.0], [0.0, 1e-3], False),
        ([[1.0, 2.0]], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0, 2.0, 3.0], False),
    ],
)
def test_difference(a: list[float], b: list[float], same: bool) -> None:
    assert (difference(np.asarray(a), np.asarray(b))[0] <= 1e-4) is same


def test_the_verify_command(files: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(cli, ["verify", *map(str, files), "--against", "torch,onnx", "--json"])
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["verified"] and data["reference"] == "torch"


def test_the_verify_command_finds_a_wrong_model(files: tuple[Path, Path], tmp_path: Path) -> None:
    prototxt, caffemodel = files
    result = CliRunner().invoke(cli, ["convert", "onnx", *map(str, files), "-o", str(tmp_path / "m.onnx")])
    assert result.exit_code == 0, result.output
    model = read_net_with_weights(prototxt, caffemodel)
    assert run_onnx_export(model, tmp_path / "m.onnx", seeded_inputs(model)).keys() >= {"conv", "ip", "prob"}
    analysis = analyse(parse_net(NET).at("TEST"))
    other = tmp_path / "other.caffemodel"
    write(other, analysis, sane_weights(analysis, seed=7), find_dialect("bvlc"))
    arguments = ["verify", str(prototxt), str(other), "--against", "torch", "--model", str(tmp_path / "m.onnx")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert "DIFFERS, first at layer 'relu'" in result.stdout


def test_inputs_are_read_from_files(tmp_path: Path) -> None:
    model = model_of()
    array = np.random.default_rng(0).uniform(size=(3, 8, 8)).astype("float32")
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(inputs_from_file(model, tmp_path / "x.npy")["data"], array[None])
    np.save(tmp_path / "wrong.npy", array[:2])
    with pytest.raises(PrototxtGenError, match="1x3x8x8"):
        inputs_from_file(model, tmp_path / "wrong.npy")


def test_an_image_is_resized_reordered_and_normalised(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    from converters.common.preprocessing import Preprocessing

    pixels = np.zeros((4, 4, 3), "uint8")
    pixels[...] = (10, 20, 30)  # blue, green, red
    cv2.imwrite(str(tmp_path / "x.png"), pixels)
    model = model_of()
    assert inputs_from_file(model, tmp_path / "x.png")["data"][0, :, 0, 0].tolist() == [10, 20, 30]
    rgb = replace(model, preprocessing=Preprocessing((1.0, 2.0, 3.0), 0.5, "RGB"))
    assert inputs_from_file(rgb, tmp_path / "x.png")["data"][0, :, 0, 0].tolist() == [14.5, 9, 3.5]


@pytest.mark.caffe
def test_max_unpooling_is_compared_with_the_layer_of_caffe(tmp_path: Path) -> None:
    """The Caffe that we build repeats pixels in Upsample; the net is written with MaxUnPool for it."""
    text = (
        'input: "x" input_shape { dim: 1 dim: 2 dim: 4 dim: 6 }\n'
        'layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "m" pooling_param { kernel_size: 2 stride: 2 } }\n'
        'layer { name: "u" type: "Upsample" bottom: "p" bottom: "m" top: "u" upsample_param { scale: 2 } }\n'
    )
    model = model_from_files(tmp_path, text)
    report = verify(model, seeded_inputs(model), ("pycaffe", "torch", "onnx"))
    assert not model.matches_files
    assert report.reference == "pycaffe" and report.verified


@pytest.mark.caffe
def test_a_blob_is_compared_as_its_layer_computed_it(tmp_path: Path) -> None:
    """In Caffe Flatten's top shares the memory of its bottom, so that the in-place ReLU changes both."""
    text = (
        'input: "x" input_shape { dim: 1 dim: 2 dim: 4 dim: 6 }\n'
        'layer { name: "t" type: "TanH" bottom: "x" top: "t" }\n'
        'layer { name: "f" type: "Flatten" bottom: "t" top: "f" }\n'
        'layer { name: "r" type: "ReLU" bottom: "f" top: "f" }\n'
    )
    model = model_from_files(tmp_path, text)
    report = verify(model, seeded_inputs(model), ("pycaffe", "torch", "onnx"))
    assert report.reference == "pycaffe" and report.verified
    assert {c.blob for c in report.compared[0].comparisons} == {"t", "f"}


@pytest.mark.caffe
def test_a_net_without_inputs_runs_in_caffe(tmp_path: Path) -> None:
    filler = 'data_filler { type: "constant" value: 2 }'
    text = (
        f'layer {{ name: "d" type: "DummyData" top: "d" dummy_data_param {{ shape {{ dim: 2 dim: 3 }} {filler} }} }}\n'
        'layer { name: "t" type: "TanH" bottom: "d" top: "t" }\n'
    )
    model = model_from_files(tmp_path, text)
    report = verify(model, seeded_inputs(model), ("pycaffe", "torch"))
    assert report.reference == "pycaffe" and report.verified


def model_from_files(folder: Path, text: str) -> Any:
    """Write a net without learned blobs to files and read it."""
    analysis = analyse(parse_net(text).at("TEST"))
    (folder / "net.prototxt").write_text(text)
    write(folder / "net.caffemodel", analysis, Weights({}), find_dialect("bvlc"))
    return read_net_with_weights(folder / "net.prototxt", folder / "net.caffemodel")


def test_a_wrong_output_is_found_without_the_blobs_above_it() -> None:
    """A runtime that returns only outputs cannot be checked layer by layer; the data layer is not run."""
    model = model_of(NET.replace("input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }", "").replace('input: "data"', INPUT))
    wrong = {"file": lambda *_: {"prob": np.full((1, 5), 0.2, "float32")}}
    report = verify(model, seeded_inputs(model), ("torch",), wrong)
    assert not report.verified
    assert report.compared[0].first_diverging is not None and report.compared[0].first_diverging.blob == "prob"


INPUT = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }'


def refused(model: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    raise PrototxtGenError("this net is refused")


@pytest.mark.caffe
def test_runtime_of_against_must_run(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    caffe_or_skip()
    monkeypatch.setitem(RUNTIMES, "onnx", refused)
    monkeypatch.setitem(RUNTIMES, "opencv", refused)
    command = ["verify", *map(str, files), "--against"]
    assert CliRunner().invoke(cli, [*command, "pycaffe,torch"]).exit_code == 0
    done = CliRunner().invoke(cli, [*command, "torch,pycaffe,onnx"])
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1] == "NOT VERIFIED: onnx did not run"
    assert CliRunner().invoke(cli, command[:-1]).exit_code == 0, "without --against it is skipped"


def test_nan_weights_are_not_verified(files: tuple[Path, Path]) -> None:
    model = read_net_with_weights(*files)
    blobs = {
        name: {role: np.array(array) for role, array in roles.items()} for name, roles in model.weights.blobs.items()
    }
    blobs["ip"]["weight"][0, 0] = np.nan
    broken = replace(model, weights=Weights(blobs))
    report = verify(broken, seeded_inputs(broken), ("torch", "onnx"))
    assert not report.verified
    last = list(verification_report.summary_sentences(report))[-1]
    assert last == "NOT VERIFIED: layer 'ip' (InnerProduct): 1 of the 720 numbers of its weight are NaN"


def test_blob_without_a_finite_number_is_not_verified() -> None:
    """Runtimes that return NaN everywhere agree about nothing."""
    model = model_of(
        'input: "data" input_shape { dim: 2 dim: 3 } layer { name: "l" type: "Log" bottom: "data" top: "l" }'
    )
    report = verify(model, {"data": np.full((2, 3), -1, np.float32)}, ("torch", "onnx"))
    assert not report.verified
    assert verify(model, {"data": np.array([[-1, 1, 2]] * 2, np.float32)}, ("torch", "onnx")).verified
