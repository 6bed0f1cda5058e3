"""Unusual values in the fourth blob of BN are kept or refused, but never give another net without a warning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from converters.common.net_with_weights import read_net_with_weights
from prototxt_gen import analyse, caffemodel, parse_net
from prototxt_gen.caffemodel import NewLayer
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import NetError
from prototxt_gen.layers.normalization.bn import moving_variance
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import Weights, possible_dialects, write

EPS = 1e-3
NET = (
    'input: "data" input_shape { dim: 2 dim: 4 dim: 3 dim: 3 }\n'
    f'layer {{ name: "bn" type: "BN" bottom: "data" top: "bn" bn_param {{ eps: {EPS} }} }}\n'
)
MEANINGS = {"inverse-std": "buptwangfei", "variance": "yjxiong"}


def converted(folder: Path, fourth: list[float], meaning: str, other: str) -> tuple[Result, Path]:
    """Write BN's weights in one meaning, and bring them into the other by the command."""
    prototxt, model, out = (folder / name for name in ("net.prototxt", "a.caffemodel", "b.caffemodel"))
    prototxt.write_text(NET)
    plain = {role: np.ones((1, 4, 1, 1), "float32") for role in ("slope", "bias", "mean")}
    blobs = {"bn": plain | {meaning.replace("-", "_"): np.array(fourth, "float32").reshape(1, 4, 1, 1)}}
    write(model, analyse(parse_net(NET)), Weights(blobs), find_dialect(MEANINGS[meaning]))
    arguments = ["convert", "caffemodel", model, "--net", prototxt, "-o", out, "--to-dialect", MEANINGS[other]]
    return CliRunner().invoke(cli, [str(argument) for argument in arguments]), out


@pytest.mark.parametrize("fourth", [[0, 1, 2, 3], [np.nan, 1, 2, 3], [1e-20, 1e-40, 1, 1], [EPS**-0.5, 1, 1, 1]])
def test_inverse_standard_deviations_as_variances(fourth: list[float], tmp_path: Path) -> None:
    done, out = converted(tmp_path, fourth, "inverse-std", "variance")
    assert done.exit_code == 0, done.output
    found = caffemodel.read(out).layers[0].blobs[3].array().reshape(-1)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose((found.astype("float64") + EPS) ** -0.5, fourth, rtol=1e-5, atol=1e-18)


@pytest.mark.parametrize("fourth", [[0, 1, 1e-10, 1e30], [np.nan, np.inf, 1, 1], [-1, -1e-4, 1, 1]])
def test_variances_as_inverse_standard_deviations(fourth: list[float], tmp_path: Path) -> None:
    """A variance below -eps makes NaN in Caffe, and so it does here."""
    done, out = converted(tmp_path, fourth, "variance", "inverse-std")
    assert done.exit_code == 0, done.output
    with np.errstate(invalid="ignore"):
        wanted = (np.array(fourth, "float32").astype("float64") + EPS) ** -0.5
    np.testing.assert_allclose(caffemodel.read(out).layers[0].blobs[3].array().reshape(-1), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("fourth", "said"),
    [
        ([40, 1, 1, 1], "layer 'bn' (BN): an inverse standard deviation is 40, but with eps 0.001"),
        ([np.inf, 1, 1, 1], "layer 'bn' (BN): an inverse standard deviation is inf, but with eps 0.001"),
        ([-1, 1, 1, 1], "layer 'bn' (BN): its fourth blob, read as inverse standard deviations, has values below 0"),
        ([1e30, 1, 1, 1], "or above 1e+18"),
    ],
)
def test_impossible_inverse_standard_deviations_are_refused(fourth: list[float], said: str, tmp_path: Path) -> None:
    done, out = converted(tmp_path, fourth, "inverse-std", "variance")
    assert done.exit_code == 1 and said in done.stderr and not out.exists()


def test_a_tiny_inverse_standard_deviation_is_split_without_a_warning() -> None:
    blobs = {"inverse_std": np.array([1e-40, 0, 1, 1], "float32")}
    variance, eps = moving_variance(blobs, EPS)
    np.testing.assert_array_equal(variance[:2], np.inf)
    assert eps == EPS


def test_a_statistic_other_than_the_forks_gives_a_remark(tmp_path: Path) -> None:
    converted(tmp_path, [1, 1, 1, 1], "variance", "inverse-std")
    files = [str(tmp_path / name) for name in ("a.caffemodel", "net.prototxt", "c.caffemodel")]
    usual = ["convert", "caffemodel", files[0], "--net", files[1], "-o", files[2], "--force", "--to-dialect", "yjxiong"]
    assert not CliRunner().invoke(cli, usual).stderr
    noted = CliRunner().invoke(cli, [*usual, "--to-statistic", "inverse-std"]).stderr
    assert noted.startswith("note: yjxiong reads the fourth blob") and "--bn-statistic inverse-std" in noted


@pytest.mark.parametrize("forks", [["buptwangfei", "pspnet"], ["buptwangfei", "pspnet", "buptwangfei"]])
def test_layers_of_different_forks_detect_no_fork(forks: list[str], tmp_path: Path) -> None:
    numbers = [find_dialect(fork).number("bn_param") or 0 for fork in forks]
    blobs = [np.ones(4, "float32")] * 4
    layers = [NewLayer(f"bn{i}", "BN", blobs, params={n: b"\x25\0\0\0\0"}) for i, n in enumerate(numbers)]
    caffemodel.write(tmp_path / "w.caffemodel", layers)
    assert possible_dialects(caffemodel.read(tmp_path / "w.caffemodel")) == []


@pytest.mark.parametrize("type_", ["BatchNorm", "BN", "Dropout"])
def test_a_layer_with_the_phase_field_of_the_other_phase_is_refused(type_: str) -> None:
    """Caffe would normalise by the batch, or drop out, in the TEST phase too."""
    text = f'{NET.splitlines()[0]} layer {{ name: "l" type: "{type_}" bottom: "data" top: "l" phase: TRAIN }}'
    with pytest.raises(NetError, match=r"layer 'l'.*phase: TRAIN, but the net runs in the TEST phase"):
        read_net_with_weights(parse_net(text), Weights({}))
    read_net_with_weights(parse_net(text.replace("TRAIN", "TEST")), Weights({}))
