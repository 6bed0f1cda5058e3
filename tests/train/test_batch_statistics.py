"""BatchNorm with use_global_stats: false left in the TEST phase: warnings, --to-deploy, and statistics in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converters import read_net_with_weights
from prototxt_gen import analyse, caffemodel, parse_net
from prototxt_gen.checks import check_net
from prototxt_gen.cli import cli
from prototxt_gen.layers.normalization.batch_norm import BatchNormParameter
from prototxt_gen.net.solver import read_solver
from prototxt_gen.passes.global_statistics import with_global_statistics
from prototxt_gen.train.backend import Backend, Settings, create
from tests.support.caffe_support import caffe_or_skip
from tests.support.sane_weights import sane_weights

DEPLOY = """
input: "data" input_shape { dim: 2 dim: 3 dim: 4 dim: 4 }
layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn" batch_norm_param { use_global_stats: false eps: 0.01 } }
"""
TRAIN_VAL = """
layer { name: "d" type: "DummyData" top: "data" dummy_data_param { shape { dim: 4 dim: 3 dim: 2 dim: 2 }
  data_filler { type: "constant" value: 2 } } }
layer { name: "t" type: "DummyData" top: "target" dummy_data_param { shape { dim: 4 dim: 3 dim: 2 dim: 2 }
  data_filler { type: "constant" value: 1 } } }
layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn" param { lr_mult: 0 } param { lr_mult: 0 }
  param { lr_mult: 0 } STATISTICS }
layer { name: "scale" type: "Scale" bottom: "bn" top: "scale" scale_param { bias_term: true } }
layer { name: "loss" type: "EuclideanLoss" bottom: "scale" bottom: "target" top: "loss" }
"""
SOLVER = (
    'net: "NET" base_lr: 0.01 lr_policy: "fixed" max_iter: 4 test_iter: 2 test_interval: 2 snapshot_prefix: "PREFIX"'
)
FALSE = "batch_norm_param { use_global_stats: false }"


def statistics(folder: Path, backend: str, fields: str, tests: int = 2) -> list[np.ndarray]:
    """Return the stored mean, variance and factor after 4 iterations and some tests of 2 batches."""
    (folder / "net.prototxt").write_text(TRAIN_VAL.replace("STATISTICS", fields))
    text = SOLVER.replace("NET", f"{folder}/net.prototxt").replace("PREFIX", f"{folder}/{backend}")
    (folder / "solver.prototxt").write_text(text)
    trained: Backend = create(backend, read_solver(folder / "solver.prototxt"), Settings(seed=1, workers=0))
    try:
        for iteration in range(4):
            if iteration < tests:
                trained.test()
            trained.step()
        trained.snapshot(folder / "w.caffemodel", folder / "w.solverstate")
    finally:
        trained.close()
    layer = next(layer for layer in caffemodel.read(folder / "w.caffemodel").layers if layer.name == "bn")
    return [blob.array().reshape(-1) for blob in layer.blobs]


def test_tests_of_a_training_run_add_to_the_statistics(tmp_path: Path) -> None:
    mean, _, factor = statistics(tmp_path, "torch", FALSE)
    assert factor == pytest.approx(sum(0.999**i for i in range(8)), rel=1e-6) == pytest.approx(7.972, abs=1e-3)
    np.testing.assert_allclose(mean, 2 * factor.repeat(3), rtol=1e-6)


@pytest.mark.parametrize("fields", ["", "batch_norm_param { eps: 1e-5 }"])
def test_tests_with_learned_statistics_do_not_change_them(tmp_path: Path, fields: str) -> None:
    assert statistics(tmp_path, "torch", fields)[2] == pytest.approx(sum(0.999**i for i in range(4)), rel=1e-6)


@pytest.mark.caffe
@pytest.mark.parametrize("fields", ["", FALSE])
def test_statistics_are_those_of_real_caffe(tmp_path: Path, fields: str) -> None:
    caffe_or_skip()
    for folder in ("caffe", "torch"):
        (tmp_path / folder).mkdir()
    theirs = statistics(tmp_path / "caffe", "pycaffe", fields)
    for ours, wanted in zip(statistics(tmp_path / "torch", "torch", fields), theirs, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6)


def test_conversion_and_check_tell_of_batch_statistics() -> None:
    net = parse_net(DEPLOY)
    model = read_net_with_weights(net, sane_weights(analyse(net)))
    assert any("layer 'bn' (BatchNorm): use_global_stats: false" in remark for remark in model.remarks)
    assert [p.severity for p in check_net(net) if p.code == "batch-statistics"] == ["warning"]
    for text in ("use_global_stats: true", ""):
        other = parse_net(DEPLOY.replace("use_global_stats: false", text))
        assert not [p for p in check_net(other) if p.code == "batch-statistics"]
        assert read_net_with_weights(other, sane_weights(analyse(other))).remarks == ()


def test_training_by_the_batch_needs_no_warning() -> None:
    rule = parse_net(TRAIN_VAL.replace("STATISTICS", FALSE + " include { phase: TRAIN }"))
    assert not [p for p in check_net(rule) if p.code == "batch-statistics" and p.phase != "TEST"]


def test_segnet_in_learn_mode_is_told_too() -> None:
    text = DEPLOY.replace('"BatchNorm"', '"BN"').replace(
        "batch_norm_param { use_global_stats: false eps: 0.01 }", "bn_param { bn_mode: LEARN }"
    )
    assert [p.layer for p in check_net(parse_net(text)) if p.code == "batch-statistics"] == ["bn"]
    inference = parse_net(text.replace("LEARN", "INFERENCE"))
    assert not [p for p in check_net(inference) if p.code == "batch-statistics"]


def test_pass_changes_only_layers_with_batch_statistics() -> None:
    text = DEPLOY + 'layer { name: "other" type: "BatchNorm" bottom: "bn" top: "other" }'
    made, changed = with_global_statistics(parse_net(text))
    assert changed == ["bn"]
    assert made.layer("bn").get(BatchNormParameter) == BatchNormParameter(use_global_stats=True, eps=0.01)
    assert made.layer("other") == parse_net(text).layer("other")


@pytest.mark.parametrize(("options", "kept"), [([], False), (["--keep-batch-statistics"], True)])
def test_to_deploy_uses_the_learned_statistics_unless_told(tmp_path: Path, options: list[str], kept: bool) -> None:
    source, target = tmp_path / "train_val.prototxt", tmp_path / "deploy.prototxt"
    source.write_text(
        'layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "x" batch_size: 4 } '
        'transform_param { crop_size: 6 mean_value: 1 mean_value: 2 mean_value: 3 } }\n'
        f'layer {{ name: "bn" type: "BatchNorm" bottom: "data" top: "bn" {FALSE} }}\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "bn" top: "ip" inner_product_param { num_output: 2 } }\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'
    )  # fmt: skip
    command = ["convert", "prototxt", str(source), "-o", str(target), "--to-deploy", *options]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    written = parse_net(target.read_text()).layer("bn").get(BatchNormParameter)
    assert written.has("use_global_stats") and written.use_global_stats is not kept
    assert ("use_global_stats: false is now true" in result.output) is not kept
