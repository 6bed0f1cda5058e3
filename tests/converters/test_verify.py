"""Verification: it passes what is right, and finds what is wrong, where it is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from converters import read_subject
from converters.verification import verification_report
from converters.verification.blob_comparison import MOST_CARRIED, difference
from converters.verification.comparison_inputs import given, seeded
from converters.verification.runtimes import RUNTIMES, run_onnx_of, run_torch
from converters.verification.verification_report import NotVerifiedError
from converters.verification.verify import verify
from prototxt_gen import analyse, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.net.render import net_text
from prototxt_gen.schema.dialect import dialect
from prototxt_gen.weights import Weights, write
from tests.support.sane_weights import sane_weights

Array = np.ndarray[Any, Any]
NET = """name: "small"
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def subject(text: str = NET) -> Any:
    net = parse_net(text, "small.prototxt").at("TEST")
    return read_subject(net, sane_weights(analyse(net)))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    net = parse_net(NET, "small.prototxt").at("TEST")
    analysis = analyse(net)
    prototxt, model = tmp_path / "small.prototxt", tmp_path / "small.caffemodel"
    prototxt.write_text(net_text(net))
    write(model, analysis, sane_weights(analysis), dialect("bvlc"))
    return prototxt, model


def test_what_is_right_agrees() -> None:
    one = subject()
    found = verify(one, seeded(one), ("torch", "onnx"))
    assert found.verified
    assert [c.blob for c in found.compared[0].comparisons] == ["conv", "ip", "prob"]


@pytest.mark.parametrize("layer", ["conv", "ip"])
def test_the_first_wrong_layer_is_named(layer: str) -> None:
    one = subject()
    blobs = {name: dict(roles) for name, roles in one.weights.blobs.items()}
    blobs[layer]["weight"] = blobs[layer]["weight"] * 1.01
    other = replace(one, weights=Weights(blobs))
    found = verify(one, seeded(one), ("torch",), {"wrong": lambda _, inputs: run_torch(other, inputs)})
    assert not found.verified
    first = found.compared[0].first_diverging
    assert first is not None and first.blob == layer
    assert f"layer '{'relu' if layer == 'conv' else 'ip'}'" in "\n".join(verification_report.sentences(found))


def test_a_missing_runtime_is_not_run_and_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Any, __: Mapping[str, Array]) -> dict[str, Array]:
        raise RuntimeMissingError("it is not installed")

    monkeypatch.setitem(RUNTIMES, "onnx", missing)
    one = subject()
    found = verify(one, seeded(one), ("torch", "onnx"))
    assert not found.verified
    assert [o.state for o in found.outcomes] == ["ran", "not run"]
    assert "nothing to compare" in "\n".join(verification_report.sentences(found))


def test_a_runtime_that_has_to_run_and_cannot_is_no_pass() -> None:
    def refuses(_: Any, __: Mapping[str, Array]) -> dict[str, Array]:
        raise PrototxtGenError("it does not load")

    one = subject()
    found = verify(one, seeded(one), ("torch", "onnx"), {"model.onnx": refuses})
    assert not found.verified
    assert "does not load" in str(NotVerifiedError(found))


def test_an_unknown_runtime_is_an_error() -> None:
    with pytest.raises(PrototxtGenError, match="there is no runtime 'tflite'"):
        verify(subject(), {}, ("tflite",))


def test_a_tie_decided_otherwise_is_told_from_a_fault() -> None:
    """Two scores that differ by less than rounding: either may be the largest; the layer is not to blame."""
    one = subject(
        'input: "data" input_shape { dim: 1 dim: 3 }'
        'layer { name: "p" type: "Power" bottom: "data" top: "p" power_param { scale: 2 } }'
        'layer { name: "a" type: "ArgMax" bottom: "p" top: "a" }'
    )
    fed = {"data": np.asarray([[1.0, 1.0, 0.0]], "float32")}
    nudged = {"data": np.asarray([[1.000001, 1.0, 0.0]], "float32")}
    found = verify(one, fed, ("torch",), {"nudged": lambda s, _: run_torch(s, nudged)})
    (argmax,) = [c for c in found.compared[0].comparisons if c.blob == "a"]
    assert argmax.excused and "near tie" in argmax.note
    wrong = verify(one, fed, ("torch",), {"wrong": lambda s, i: run_torch(s, i) | {"a": np.full((1, 1, 1), 2.0)}})
    assert not wrong.verified


def test_a_fault_behind_a_tie_is_a_fault() -> None:
    """A runtime that shows the layer's own bottom cannot blame the tie for what the layer makes of it."""
    text = (
        'input: "data" input_shape { dim: 1 dim: 2 }'
        'layer { name: "a" type: "ArgMax" bottom: "data" top: "a" }'
        'layer { name: "p" type: "Power" bottom: "a" top: "p" power_param { scale: 3 } }'
    )
    one = read_subject(parse_net(text), Weights({}))
    fed = {"data": np.array([[1.0, 1.0 - 1e-7]], "float32")}

    def tied(factor: float) -> Any:
        nearly = {"data": np.array([[1.0 - 1e-7, 1.0]], "float32")}
        return lambda s, _: (blobs := run_torch(s, nearly)) | {"p": blobs["a"] * np.float32(factor)}

    right = verify(one, fed, ("torch",), {"other": tied(3)})
    assert right.verified and all(c.excused for c in right.compared[0].comparisons)
    assert not verify(one, fed, ("torch",), {"other": tied(4)}).verified


def test_rounding_is_no_excuse_for_a_large_difference() -> None:
    one = subject()
    fed = seeded(one)
    other = {name: array + 0.5 for name, array in fed.items()}
    found = verify(one, fed, ("torch",), {"other": lambda s, _: run_torch(s, other)})
    assert not found.verified


def test_what_rounding_alone_does_to_a_net_is_no_fault() -> None:
    """Around a million, single precision has steps of 1/16; a runtime that rounds otherwise is as far from ours."""
    text = (
        'input: "data" input_shape { dim: 1 dim: 8 }'
        'layer { name: "up" type: "Power" bottom: "data" top: "up" power_param { shift: 1e6 } }'
        'layer { name: "down" type: "Power" bottom: "up" top: "down" power_param { shift: -1e6 } }'
    )
    one = read_subject(parse_net(text), None)
    fed = {"data": np.linspace(-1, 1, 8, dtype="float32").reshape(1, 8) + np.float32(0.013)}

    def other(fault: float) -> Any:
        return lambda s, i: {"down": run_torch(s, i, double=True)["down"] + fault}

    (found,) = verify(one, fed, ("torch",), {"other": other(0)}).compared
    assert found.comparisons[0].error > MOST_CARRIED
    assert found.ok and "rounding alone moves it by" in found.comparisons[0].note
    assert not verify(one, fed, ("torch",), {"other": other(0.7)}).verified


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


def test_command(files: tuple[Path, Path]) -> None:
    made = CliRunner().invoke(cli, ["verify", *map(str, files), "--against", "torch,onnx", "--json"])
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert told["verified"] and told["reference"] == "torch"


def test_command_finds_a_wrong_model(files: tuple[Path, Path], tmp_path: Path) -> None:
    prototxt, model = files
    made = CliRunner().invoke(cli, ["convert", "onnx", *map(str, files), "-o", str(tmp_path / "m.onnx")])
    assert made.exit_code == 0, made.output
    one = read_subject(prototxt, model)
    assert run_onnx_of(one, tmp_path / "m.onnx", seeded(one)).keys() >= {"conv", "ip", "prob"}
    analysis = analyse(parse_net(NET).at("TEST"))
    other = tmp_path / "other.caffemodel"
    write(other, analysis, sane_weights(analysis, seed=7), dialect("bvlc"))
    arguments = ["verify", str(prototxt), str(other), "--against", "torch", "--model", str(tmp_path / "m.onnx")]
    made = CliRunner().invoke(cli, arguments)
    assert made.exit_code == 1
    assert "DIFFERS, first at layer 'relu'" in made.stdout


def test_inputs_from_files(tmp_path: Path) -> None:
    one = subject()
    array = np.random.default_rng(0).uniform(size=(3, 8, 8)).astype("float32")
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(given(one, tmp_path / "x.npy")["data"], array[None])
    np.save(tmp_path / "wrong.npy", array[:2])
    with pytest.raises(PrototxtGenError, match="1x3x8x8"):
        given(one, tmp_path / "wrong.npy")


def test_a_picture_is_resized_ordered_and_normalised(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    from converters.common.preprocessing import Preprocessing

    pixels = np.zeros((4, 4, 3), "uint8")
    pixels[...] = (10, 20, 30)  # blue, green, red
    cv2.imwrite(str(tmp_path / "x.png"), pixels)
    one = subject()
    assert given(one, tmp_path / "x.png")["data"][0, :, 0, 0].tolist() == [10, 20, 30]
    rgb = replace(one, preprocessing=Preprocessing((1.0, 2.0, 3.0), 0.5, "RGB"))
    assert given(rgb, tmp_path / "x.png")["data"][0, :, 0, 0].tolist() == [14.5, 9, 3.5]


@pytest.mark.caffe
def test_unpooling_is_compared_with_caffes_own(tmp_path: Path) -> None:
    """Caffe as we build it repeats pixels where a net of ENet's fork means to unpool: it is asked for its MaxUnPool."""
    text = (
        'input: "x" input_shape { dim: 1 dim: 2 dim: 4 dim: 6 }\n'
        'layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "m" pooling_param { kernel_size: 2 stride: 2 } }\n'
        'layer { name: "u" type: "Upsample" bottom: "p" bottom: "m" top: "u" upsample_param { scale: 2 } }\n'
    )
    one = opened(tmp_path, text)
    found = verify(one, seeded(one), ("pycaffe", "torch", "onnx"))
    assert not one.as_filed
    assert found.reference == "pycaffe" and found.verified


@pytest.mark.caffe
def test_a_blob_counts_as_its_layer_made_it(tmp_path: Path) -> None:
    """Flatten's top has the memory of its bottom: in Caffe the ReLU changes both."""
    text = (
        'input: "x" input_shape { dim: 1 dim: 2 dim: 4 dim: 6 }\n'
        'layer { name: "t" type: "TanH" bottom: "x" top: "t" }\n'
        'layer { name: "f" type: "Flatten" bottom: "t" top: "f" }\n'
        'layer { name: "r" type: "ReLU" bottom: "f" top: "f" }\n'
    )
    one = opened(tmp_path, text)
    found = verify(one, seeded(one), ("pycaffe", "torch", "onnx"))
    assert found.reference == "pycaffe" and found.verified
    assert {c.blob for c in found.compared[0].comparisons} == {"t", "f"}


@pytest.mark.caffe
def test_a_net_without_inputs_runs_in_caffe(tmp_path: Path) -> None:
    filler = 'data_filler { type: "constant" value: 2 }'
    text = (
        f'layer {{ name: "d" type: "DummyData" top: "d" dummy_data_param {{ shape {{ dim: 2 dim: 3 }} {filler} }} }}\n'
        'layer { name: "t" type: "TanH" bottom: "d" top: "t" }\n'
    )
    one = opened(tmp_path, text)
    found = verify(one, seeded(one), ("pycaffe", "torch"))
    assert found.reference == "pycaffe" and found.verified


def opened(folder: Path, text: str) -> Any:
    """Return the subject of a net that learns nothing, read from files."""
    analysis = analyse(parse_net(text).at("TEST"))
    (folder / "net.prototxt").write_text(text)
    write(folder / "net.caffemodel", analysis, Weights({}), dialect("bvlc"))
    return read_subject(folder / "net.prototxt", folder / "net.caffemodel")


def test_a_file_that_differs_is_told_so_where_layers_lie_between() -> None:
    """What shows only outputs cannot be asked layer by layer; the data layer is not run for it."""
    one = subject(NET.replace("input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }", "").replace('input: "data"', INPUT))
    wrong = {"file": lambda *_: {"prob": np.full((1, 5), 0.2, "float32")}}
    found = verify(one, seeded(one), ("torch",), wrong)
    assert not found.verified
    assert found.compared[0].first_diverging is not None and found.compared[0].first_diverging.blob == "prob"


INPUT = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }'
