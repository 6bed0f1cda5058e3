"""Weights in HDF5 do not show the fork: commands need --bn-statistic for the fourth blob of BN, and use it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from prototxt_gen import analyse, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import WeightsError
from prototxt_gen.net.solver import read_solver
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.train.backend import Settings, create
from prototxt_gen.weights import Weights, as_inverse_std, as_variance, write
from tests.support import train_support as support
from tests.support.caffe_support import caffe_or_skip
from tests.support.sane_weights import sane_weights

EPS = 1e-3
BODY = (
    'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" '
    'convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }\n'
    f'layer {{ name: "bn" type: "BN" bottom: "conv" top: "conv" bn_param {{ eps: {EPS} }} }}\n'
    'layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" '
    'inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }\n'
)
DEPLOY = 'name: "merged" input: "data" input_shape { dim: 1 dim: 1 dim: 14 dim: 14 }\n' + BODY
TRAINED = (
    'name: "merged" layer { name: "data" type: "Data" top: "data" top: "label" '
    'data_param { source: "set" batch_size: 5 backend: LMDB } }\n'
    + BODY
    + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'
)
SOLVER = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "out/m" solver_mode: CPU'
MEANINGS = {"inverse-std": as_inverse_std, "variance": as_variance}
ASKS = "the meaning of the fourth blob of its BN layers is unknown"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a data set, a solver, a deploy net and its weights, in HDF5, in either meaning."""
    support.folder(tmp_path, TRAINED, SOLVER)
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    analysis = analyse(parse_net(DEPLOY))
    for name, meaning in MEANINGS.items():
        made = meaning(sane_weights(analysis), analysis)
        write(tmp_path / f"{name}.caffemodel.h5", analysis, made, find_dialect("prototxt-gen"))
    return tmp_path


def expected() -> Weights:
    analysis = analyse(parse_net(DEPLOY))
    return as_inverse_std(sane_weights(analysis), analysis)


@pytest.mark.parametrize("backend", ["torch", pytest.param("pycaffe", marks=pytest.mark.caffe)])
def test_training_accepts_both_statistics(backend: str, folder: Path) -> None:
    if backend == "pycaffe":
        caffe_or_skip()
    for name in MEANINGS:
        made = create(backend, read_solver(folder / "solver.prototxt"), Settings(workers=0, bn_statistic=name))
        made.load_weights(folder / f"{name}.caffemodel.h5")
        made.snapshot(folder / "taken.caffemodel", folder / "taken.solverstate")
        made.close()
        found = support.weights(folder / "taken.caffemodel")
        for layer, roles in expected().blobs.items():
            for ours, wanted in zip(found[layer], roles.values(), strict=True):
                np.testing.assert_allclose(ours.ravel(), wanted.ravel(), rtol=1e-5, err_msg=f"{name} {layer}")


@pytest.mark.parametrize("backend", ["torch", pytest.param("pycaffe", marks=pytest.mark.caffe)])
def test_training_needs_the_statistic(backend: str, folder: Path) -> None:
    if backend == "pycaffe":
        caffe_or_skip()
    made = create(backend, read_solver(folder / "solver.prototxt"), Settings(workers=0))
    with pytest.raises(WeightsError, match=f"{ASKS} .*: give --bn-statistic inverse-std or variance$"):
        made.load_weights(folder / "variance.caffemodel.h5")
    made.close()


def test_the_command_that_trains(folder: Path) -> None:
    _, told = support.train(folder, "--weights", "variance.caffemodel.h5", status=1)
    assert [line for line in told.splitlines() if ASKS in line and line.startswith("error: ")]
    assert "Traceback" not in told
    out, _ = support.train(folder, "--weights", "variance.caffemodel.h5", "--bn-statistic", "variance")
    assert "trained to iteration 1" in out


@pytest.mark.parametrize("form", ["onnx", "pytorch"])
def test_the_commands_that_convert(form: str, folder: Path) -> None:
    for name in MEANINGS:
        made = folder / f"made-{name}"
        arguments = ["convert", form, str(folder / "deploy.prototxt"), str(folder / f"{name}.caffemodel.h5")]
        asked = CliRunner().invoke(cli, [*arguments, "-o", str(made)])
        assert asked.exit_code == 1 and ASKS in asked.stderr and not made.exists()
        done = CliRunner().invoke(cli, [*arguments, "-o", str(made), "--bn-statistic", name])
        assert done.exit_code == 0 and made.exists(), done.stderr
    again = folder / "again.caffemodel"
    for name in MEANINGS if form == "pytorch" else ():
        read = ["convert", "caffemodel", str(folder / f"made-{name}"), "-o", str(again), "--force"]
        done = CliRunner().invoke(cli, [*read, "--to-dialect", "prototxt-gen"])
        assert done.exit_code == 0, done.stderr
        wanted = expected().of("bn")["inverse_std"]
        np.testing.assert_allclose(support.weights(again)["bn"][3].ravel(), wanted.ravel(), rtol=1e-5)
