"""Merging and splitting of normalisation in nets of both phases, with shared blobs and frozen parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converters import read_net_with_weights
from converters.verification.blob_comparison import difference
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.runtimes import run_torch
from prototxt_gen import analyse, caffemodel, parse_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Net
from prototxt_gen.layers.normalization.bn import BNParameter
from prototxt_gen.net.render import net_text
from prototxt_gen.passes.bn_merge import merge_batch_norms
from prototxt_gen.passes.bn_split import split_batch_norms
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import Weights, write
from tests.support.sane_weights import sane_weights

DATA = 'name: "n" input: "data" input_shape { dim: 2 dim: 3 dim: 4 dim: 4 }\n'
TRAIN, TEST = "include { phase: TRAIN }", "include { phase: TEST }"
NOTHING = Weights({})


def layer(name: str, type_: str, bottom: str, top: str, rest: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{type_}" bottom: "{bottom}" top: "{top}" {rest} }}\n'


def copies(type_: str, train: str, test: str) -> str:
    """Return a layer that is there in both phases, as two layers of one name."""
    return layer("bn", type_, "data", "bn", f"{train} {TRAIN}") + layer("bn", type_, "data", "bn", f"{test} {TEST}")


def shown(net: Net, phase: str) -> list[tuple[str, str]]:
    return [(each.name, each.type) for each in net.at(phase).layers]


def test_layers_of_two_phases_are_split_into_layers_of_the_same_names() -> None:
    """Else what the one phase learns would be nothing to the other."""
    net = parse_net(DATA + copies("BN", "", "bn_param { frozen: true }"))
    made, _ = split_batch_norms(net, NOTHING)
    assert shown(made, "TRAIN") == shown(made, "TEST") == [("bn", "BatchNorm"), ("bn/scale", "Scale")]


def test_a_scale_after_a_layer_of_each_phase_is_merged_with_both() -> None:
    params = "batch_norm_param { use_global_stats: %s }"
    text = DATA + copies("BatchNorm", params % "false", params % "true") + layer("s", "Scale", "bn", "bn")
    made, _ = merge_batch_norms(parse_net(text), NOTHING)
    assert shown(made, "TRAIN") == shown(made, "TEST") == [("bn", "BN")]
    assert [each.get(BNParameter).frozen for each in made.layers] == [False, True]
    with pytest.raises(UnsupportedError, match=r"layer 'bn'.*use_global_stats: false"):
        merge_batch_norms(parse_net(text.replace(params % "true", params % "false")), NOTHING)


@pytest.mark.parametrize("rule", [TRAIN, TEST, 'include { stage: "deploy" }', "exclude { min_level: 3 }"])
def test_a_scale_that_is_not_always_there_stays(rule: str) -> None:
    text = DATA + layer("bn", "BatchNorm", "data", "bn") + layer("s", "Scale", "bn", "bn", rule)
    made, _ = merge_batch_norms(parse_net(text), NOTHING)
    assert [each.type for each in made.layers] == ["BN", "Scale"]


def test_a_scale_that_follows_something_else_in_one_phase_stays() -> None:
    text = DATA + layer("bn", "BatchNorm", "data", "bn", TEST) + layer("r", "ReLU", "data", "bn", TRAIN)
    made, _ = merge_batch_norms(parse_net(text + layer("s", "Scale", "bn", "bn")), NOTHING)
    assert shown(made, "TRAIN") == [("r", "ReLU"), ("s", "Scale")]
    assert shown(made, "TEST") == [("bn", "BN"), ("s", "Scale")]


def test_a_scale_whose_blob_another_layer_shares_stays() -> None:
    named = 'param { name: "gamma" }'
    text = DATA + layer("bn", "BatchNorm", "data", "bn") + layer("s", "Scale", "bn", "bn", named)
    made, _ = merge_batch_norms(parse_net(text + layer("t", "Scale", "bn", "bn", named)), NOTHING)
    assert [each.type for each in made.layers] == ["BN", "Scale", "Scale"]


def test_shared_statistics_stay_shared() -> None:
    named = " ".join(f'param {{ name: "{name}" }}' for name in ("g", "b", "mean", "var"))
    made, _ = split_batch_norms(parse_net(DATA + layer("bn", "BN", "data", "bn", named)), NOTHING)
    names = [[(spec.name, spec.lr_mult) for spec in each.params.param] for each in made.layers]
    assert names == [[("mean", 0), ("var", 0), ("mean/factor", 0)], [("g", 1), ("b", 1)]]


@pytest.mark.parametrize(
    ("scale", "rates"),
    [(None, [0, 0, 0, 0]), ("", [1, 0, 0, 0]), ("param { lr_mult: 2 } scale_param { bias_term: true }", [2, 1, 0, 0])],
)
def test_blobs_that_were_not_learned_stay_so(scale: str | None, rates: list[float]) -> None:
    text = DATA + layer("bn", "BatchNorm", "data", "bn")
    text += layer("s", "Scale", "bn", "bn", scale) if scale is not None else ""
    made, _ = merge_batch_norms(parse_net(text), NOTHING)
    assert [spec.lr_mult for spec in made.layers[0].params.param] == rates


def test_a_merged_layer_has_the_fillers_of_its_scale() -> None:
    filled = "scale_param { filler { value: 0.5 } bias_term: true bias_filler { value: 2 } }"
    made, _ = merge_batch_norms(
        parse_net(DATA + layer("bn", "BatchNorm", "data", "bn") + layer("s", "Scale", "bn", "s", filled)), NOTHING
    )
    assert "value: 0.5" in net_text(made) and "value: 2" in net_text(made)


def test_a_blob_that_merging_changes_is_not_an_error(tmp_path: Path) -> None:
    """Normalised in place and scaled elsewhere: merged, the blob in place stays what it was."""
    text = DATA + layer("c", "ReLU", "data", "c") + layer("bn", "BatchNorm", "c", "c") + layer("s", "Scale", "c", "s")
    files = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    files[0].write_text(text)
    analysis = analyse(parse_net(text))
    write(files[1], analysis, sane_weights(analysis), find_dialect("bvlc"))
    done = CliRunner().invoke(cli, ["convert", "bn", *map(str, files), "-o", str(tmp_path / "out"), "--to", "merged"])
    assert done.exit_code == 0, done.output
    before = read_net_with_weights(*files)
    after = read_net_with_weights(*(tmp_path / "out" / file.name for file in files))
    inputs = seeded_inputs(before)
    assert difference(run_torch(before, inputs)["s"], run_torch(after, inputs)["s"])[0] < 1e-5


@pytest.mark.parametrize("name", ["w.caffemodel", "w.caffemodel.h5"])
def test_a_scalar_is_written_as_one(name: str, tmp_path: Path) -> None:
    """Caffe refuses a blob of shape 1 where its own has no axes."""
    analysis = analyse(parse_net(DATA + layer("s", "Scale", "data", "s", "scale_param { num_axes: 0 }")))
    write(tmp_path / name, analysis, Weights({"s": {"scale": np.float32(3).reshape(())}}), find_dialect("bvlc"))
    (blob,) = caffemodel.read(tmp_path / name).layers[0].blobs
    assert blob.shape == () and blob.array() == 3
