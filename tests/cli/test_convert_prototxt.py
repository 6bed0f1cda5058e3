"""`convert prototxt --to-deploy` and `--to-train-val`: options, notes, and no file that does not pass `check`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from prototxt_gen.analysis import analyse
from prototxt_gen.cli import cli
from prototxt_gen.ir import Net
from prototxt_gen.net.prototxt_reader import read_net
from tests.support.caffemodel_oracle import MODELS

LENET = """name: "lenet"
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "a" batch_size: 64 } }
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "b" batch_size: 100 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 10 } }
layer { name: "small" type: "InnerProduct" bottom: "data" top: "small" inner_product_param { num_output: 10 }
  include { phase: TEST stage: "two" min_level: 1 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
DEPLOY = """name: "deploy" input: "data" input_shape { dim: 1 dim: 1 dim: 28 dim: 28 }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 10 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
SHAPE = ("--shape", "data=2x1x28x28")


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def convert(folder: Path, text: str, *options: str) -> tuple[Result, Net | None]:
    """Return what the command printed, and the net if one was written, which must pass `check`."""
    path, out = folder / "in.prototxt", folder / "out.prototxt"
    path.write_text(text)
    out.unlink(missing_ok=True)
    result = run("convert", "prototxt", path, "-o", out, *options)
    assert out.exists() == (result.exit_code == 0), result.output
    if not out.exists():
        return result, None
    checked = run("check", out)
    assert checked.exit_code == 0, checked.output
    return result, read_net(out)


def outputs(net: Net | None) -> list[str]:
    assert net is not None
    return [value.blob for value in net.outputs]


def test_the_shape_given_is_the_shape_of_the_input(tmp_path: Path) -> None:
    _, net = convert(tmp_path, LENET, "--to-deploy", *SHAPE)
    assert net is not None and net.inputs[0].shape == (2, 1, 28, 28)


def test_stage_and_level_select_layers(tmp_path: Path) -> None:
    more = ("--to-deploy", *SHAPE)
    assert outputs(convert(tmp_path, LENET, *more)[1]) == ["prob"]
    assert outputs(convert(tmp_path, LENET, *more, "--stage", "two")[1]) == ["prob"]
    assert outputs(convert(tmp_path, LENET, *more, "--stage", "two", "--level", "1")[1]) == ["small", "prob"]
    assert outputs(convert(tmp_path, LENET, *more, "--phase", "train", "--stage", "two", "--level", "1")[1]) == ["prob"]


def test_a_phase_alone_writes_only_its_layers(tmp_path: Path) -> None:
    _, net = convert(tmp_path, LENET, "--phase", "TRAIN")
    assert net is not None and [one.name for one in net.layers] == ["mnist", "ip", "loss"]
    assert not any(one.params.include for one in net.layers)


def test_a_shape_makes_an_input_of_what_no_layer_makes(tmp_path: Path) -> None:
    text = LENET[LENET.index('layer { name: "ip"') :]
    result, net = convert(tmp_path, text, "--to-deploy", *SHAPE)
    assert net is not None and net.inputs[0].shape == (2, 1, 28, 28)
    result, net = convert(tmp_path, text, "--to-deploy")
    assert net is None and "--shape data=" in result.stderr


def test_input_size_keeps_the_batch_of_a_deploy_net(tmp_path: Path) -> None:
    text = LENET.replace("scale: 0.00390625", "crop_size: 28 mean_value: 1 mean_value: 2 mean_value: 3")
    for size in ("20", "20x20", "3x20x20"):
        _, net = convert(tmp_path, text, "--to-deploy", "--input-size", size)
        assert net is not None and net.inputs[0].shape == (1, 3, 20, 20)
    _, net = convert(tmp_path, text, "--to-deploy", "--input-size", "5x3x20x20")
    assert net is not None and net.inputs[0].shape == (5, 3, 20, 20)


def test_a_note_names_the_head_that_is_left_out(tmp_path: Path) -> None:
    aux = """layer { name: "aux" type: "InnerProduct" bottom: "data" top: "aux" inner_product_param { num_output: 10 } }
    layer { name: "aux_loss" type: "SoftmaxWithLoss" bottom: "aux" bottom: "label" top: "aux_loss" loss_weight: 0.3 }"""
    result, net = convert(tmp_path, LENET + aux, "--to-deploy", *SHAPE)
    assert outputs(net) == ["prob"]
    assert "left out: auxiliary head 'aux_loss' (SoftmaxWithLoss, loss_weight 0.3)" in result.stderr
    assert "'loss' (SoftmaxWithLoss, loss_weight 1), with layer 'aux'" in result.stderr


def test_a_layer_of_unknown_type_is_named(tmp_path: Path) -> None:
    text = LENET.replace('bottom: "data" top: "ip"', 'bottom: "odd" top: "ip"')
    text = text.replace(
        'layer { name: "ip"', 'layer { name: "odd" type: "Odd" bottom: "data" top: "odd" }\nlayer { name: "ip"'
    )
    result, net = convert(tmp_path, text, "--to-deploy", *SHAPE)
    assert net is not None
    assert "checked only in part: layer 'odd' (Odd): the type is not known" in result.stderr


def test_no_preprocessing_is_invented(tmp_path: Path) -> None:
    result, net = convert(tmp_path, DEPLOY, "--to-train-val")
    assert net is not None
    text = (tmp_path / "out.prototxt").read_text()
    assert "mean_value" not in text and "scale" not in text and "mirror: true" not in text
    assert "no mean and no scale are applied" in result.stderr
    convert(tmp_path, DEPLOY, "--to-train-val", "--mean", "33", "--scale", "0.5", "--mirror")
    text = (tmp_path / "out.prototxt").read_text()
    assert "mean_value: 33" in text and "scale: 0.5" in text and "mirror: true" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mean", "1,2,3"), "--mean gives 3 numbers for 1 channels"),
        (("--data-layer", "hdf5", "--mirror"), "--mirror has no effect with --data-layer hdf5"),
        (("--data-layer", "input", "--scale", "2"), "--scale has no effect with --data-layer input"),
        (("--resize", "30"), "--resize has no effect with --data-layer lmdb"),
        (("--phase", "TRAIN", "--crop", "1000000"), "more than 2^31-1 elements"),
    ],
)
def test_options_without_effect_are_errors(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    result, net = convert(tmp_path, DEPLOY, "--to-train-val", *options)
    assert net is None and message in result.stderr


def test_an_output_without_a_loss_is_named(tmp_path: Path) -> None:
    head = (
        'layer { name: "box" type: "InnerProduct" bottom: "data" top: "box" inner_product_param { num_output: 4 } }\n'
    )
    result, net = convert(
        tmp_path, DEPLOY.replace('layer { name: "prob"', head + 'layer { name: "prob"'), "--to-train-val"
    )
    assert net is not None and "'box': no loss trains this output" in result.stderr


def _real_files() -> list[Path]:
    return sorted(path for path in MODELS.glob("**/*.prototxt") if "solver" not in path.name.lower())


@pytest.mark.slow
def test_what_is_written_for_real_files_passes_check(tmp_path: Path) -> None:
    """Each real file gives a net without an error, or nothing; a shape that is asked for is given."""
    files = _real_files()
    if not files:
        pytest.skip("no real models are beside the checkout")
    written = 0
    for path in files:
        given: list[str] = []
        for _ in range(3):
            result, net = convert_file(tmp_path, path, "--to-deploy", *given)
            asked = re.findall(r"--shape (\S+?)=1x3x224x224", result.stderr)
            if net is not None or not asked:
                break
            given += [word for blob in asked for word in ("--shape", f"{blob}=1x3x224x224")]
        if net is not None:
            written += 1
            known = "checked only in part" not in result.stderr
            assert net.inputs and net.layers and analyse(net).complete == known, path
        for kind in ("lmdb", "hdf5"):
            convert_file(tmp_path, path, "--to-train-val", "--data-layer", kind, "--batch", "2", "--test-batch", "2")
    assert written > len(files) // 2


def convert_file(folder: Path, path: Path, *options: str) -> tuple[Result, Net | None]:
    out = folder / "out.prototxt"
    out.unlink(missing_ok=True)
    result = run("convert", "prototxt", path, "-o", out, *options)
    assert result.exit_code in (0, 1) and out.exists() == (result.exit_code == 0), (path, result.output)
    if not out.exists():
        assert result.stderr.splitlines()[-1].strip()
        return result, None
    checked = run("check", out)
    assert checked.exit_code == 0, (path, checked.output)
    return result, read_net(out)
