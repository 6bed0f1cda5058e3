"""The commands that read: summary, check, view, layers and convert prototxt, on sound, odd and broken files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prototxt_gen import layers
from prototxt_gen.analysis import analyse
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.models import build
from prototxt_gen.net.prototxt_reader import parse_net, read_net
from prototxt_gen.net.render import net_text
from prototxt_gen.passes.to_deploy import to_deploy
from prototxt_gen.passes.to_dialect import layer_types_of, to_dialect
from prototxt_gen.schema.dialect import DIALECTS, find_dialect


def run(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(net_text(build("attention-56-cifar")))
    return path


LENET = """
name: "LeNet"
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TRAIN } transform_param { scale: 0.0039 }
  data_param { source: "a" batch_size: 64 } }
layer { name: "mnist" type: "Data" top: "data" top: "label" include { phase: TEST } transform_param { scale: 0.0039 }
  data_param { source: "b" batch_size: 100 } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv1" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def write(folder: Path, text: str, name: str = "in.prototxt") -> Path:
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    return folder / name


# ---- summary


def test_summary_says_what_the_analysis_says(net: Path) -> None:
    analysis = analyse(read_net(net))
    data = json.loads(run("summary", net, "--json").stdout)
    assert (data["parameters"], data["macs"]) == (analysis.parameters, analysis.macs)
    assert [one["macs"] for one in data["layers"]] == [row.macs for row in analysis.rows]
    text = run("summary", net).stdout
    assert f"{analysis.parameters:,}" in text
    assert all(row.layer.name in text for row in analysis.rows)  # in a pipe nothing is cut off


def test_summary_of_another_size(net: Path) -> None:
    data = json.loads(run("summary", net, "--input-size", "2x3x32x32", "--json").stdout)
    assert data["inputs"] == [{"blob": "data", "shape": [2, 3, 32, 32]}]
    assert data["macs"] == 2 * analyse(read_net(net)).macs


def test_summary_in_each_phase(tmp_path: Path) -> None:
    path = write(tmp_path, LENET)
    for phase, batch in (("train", 64), ("test", 100)):
        data = json.loads(run("summary", path, "--phase", phase, "--shape", f"data={batch}x1x28x28", "--json").stdout)
        assert data["phase"] == phase.upper()
        assert data["layers"][1]["tops"][0]["shape"] == [batch, 20, 24, 24]


def test_summary_says_why_it_does_not_know(tmp_path: Path) -> None:
    head = 'input: "d" input_shape { dim: 1 dim: 3 }\n'
    text = head + "".join(
        f'layer {{ name: "x{i}" type: "Nonsense" bottom: "d" top: "x{i}" }}\n'
        f'layer {{ name: "r{i}" type: "ReLU" bottom: "x{i}" top: "r{i}" }}\n'
        for i in range(3)
    )
    shown = run("summary", write(tmp_path, text)).stdout
    assert shown.count("the type is not known") == 1
    assert "and 2 like it; 3 layers wait for it" in shown
    assert "at least 0" in shown


def test_summary_of_a_solver(tmp_path: Path) -> None:
    write(tmp_path, LENET, "net.prototxt")
    text = 'net: "net.prototxt" test_iter: 1 test_interval: 5 base_lr: 0.1 lr_policy: "fixed" odd: 1'
    solver = write(tmp_path, text, "solver.prototxt")
    shown = run("summary", solver).stdout
    assert "base_lr" in shown and "train net" in shown and "test net" in shown and "no field 'odd'" in shown
    data = json.loads(run("summary", solver, "--json").stdout)
    assert data["solver"]["test_iter"] == [1]
    assert [one["role"] for one in data["nets"]] == ["train net", "test net"]
    (tmp_path / "net.prototxt").unlink()
    assert "net 'net.prototxt' does not exist" in run("summary", solver).stdout


def test_names_that_no_terminal_should_get(tmp_path: Path) -> None:
    path = write(tmp_path, r'input: "d" layer { name: "a\377\033[31m\n" type: "Odd" bottom: "d" top: "t" }')
    for command in ("summary", "check"):
        done = subprocess.run(
            [sys.executable, "-m", "prototxt_gen", command, path], capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr
        assert "\\udcff\\x1b[31m\\n" in done.stdout.replace("\\\\", "\\")
        assert "\x1b" not in done.stdout


# ---- check


def test_check_exits_1_only_for_errors(tmp_path: Path) -> None:
    head = 'input: "d" input_shape { dim: 1 dim: 3 }\n'
    odd = write(tmp_path, head + 'layer { name: "o" type: "Odd" bottom: "d" top: "o" }')
    run("check", odd)
    run("check", odd, "--strict", code=1)
    bad = write(tmp_path, head + 'layer { name: "r" type: "ReLU" bottom: "none" top: "r" }')
    found = json.loads(run("check", bad, "--json", code=1).stdout)
    assert ("dangling-bottom", 2, "error") in [(one["code"], one["line"], one["severity"]) for one in found]


def test_check_of_a_text_that_cannot_be_read(tmp_path: Path) -> None:
    (found,) = json.loads(run("check", write(tmp_path, "layer {\n  name: }"), "--json", code=1).stdout)
    assert (found["code"], found["line"]) == ("not-readable", 2)


# ---- layers, view


def test_layers_lists_every_layer_type() -> None:
    rows = json.loads(run("layers", "--json").stdout)
    assert {row["type"] for row in rows} == set(layers.all_layer_types())
    by_type = {row["type"]: row for row in rows}
    assert by_type["Convolution"]["pytorch"] and by_type["Convolution"]["onnx"]
    assert not by_type["Python"]["pytorch"] and not by_type["Data"]["onnx"]


def test_layers_of_one_type() -> None:
    shown = run("layers", "Pooling").stdout
    assert "Source: src/caffe/layers/pooling_layer.cpp" in shown and "MAX|AVE|STOCHASTIC" in shown
    assert "layers/vision/pooling.py" in shown
    fields = {
        one["name"]: one for one in json.loads(run("layers", "Pooling", "--json").stdout)["messages"][0]["fields"]
    }
    assert fields["stride"]["default"] == 1 and fields["stride"]["number"] == 3
    assert "did you mean 'Pooling'" in run("layers", "Poolin", code=1).stderr


def test_view_says_what_is_missing(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "netron", None)
    assert "pip install 'prototxt-gen[draw]'" in run("view", net, code=1).stderr


def test_view_serves_the_file(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netron = pytest.importorskip("netron")
    served: list[Any] = []
    monkeypatch.setattr(netron, "start", lambda path, **options: served.append((path, options)))
    monkeypatch.setattr(netron, "wait", lambda: None)
    run("view", net, "--no-browser")
    assert served == [(str(net), {"address": ("localhost", 0), "browse": False})]


# ---- convert prototxt


def convert(folder: Path, text: str, *arguments: str, code: int = 0) -> Any:
    output = folder / "out.prototxt"
    result = run("convert", "prototxt", write(folder, text), "-o", output, "--force", *arguments, code=code)
    return read_net(output) if code == 0 else result.stderr


def test_v1_becomes_v2(tmp_path: Path) -> None:
    old = """layers { name: "c" type: CONVOLUTION bottom: "d" top: "c" blobs_lr: 1 blobs_lr: 2
      convolution_param { num_output: 2 kernel_size: 3 } }"""
    net = convert(tmp_path, f'input: "d" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8 {old}')
    assert net.layers[0].type == "Convolution"
    assert [spec.lr_mult for spec in net.layers[0].params.param] == [1, 2]
    assert "layers" not in (tmp_path / "out.prototxt").read_text()


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    path = write(tmp_path, LENET)
    before = path.read_bytes()
    assert "--force" in run("convert", "prototxt", path, "-o", path, code=1).stderr
    assert path.read_bytes() == before


def test_to_deploy(tmp_path: Path) -> None:
    net = convert(tmp_path, LENET, "--to-deploy", "--shape", "data=100x1x28x28")
    assert [(value.blob, value.shape) for value in net.inputs] == [("data", (100, 1, 28, 28))]
    assert [layer.type for layer in net.layers] == ["Convolution", "InnerProduct", "Softmax"]
    assert not any(layer.params.param for layer in net.layers)
    assert analyse(net).complete
    assert "give it with --shape" in convert(tmp_path, LENET, "--to-deploy", code=1)


def test_to_deploy_takes_the_loss_of_the_train_phase(tmp_path: Path) -> None:
    only_train = LENET.replace('top: "loss" }', 'top: "loss" include { phase: TRAIN } }')
    net = convert(tmp_path, only_train, "--to-deploy", "--shape", "data=1x1x28x28")
    assert net.layers[-1].type == "Softmax"


def test_to_deploy_leaves_out_auxiliary_heads_and_keeps_constants(tmp_path: Path) -> None:
    auxiliary = """
layer { name: "aux" type: "InnerProduct" bottom: "conv1" top: "aux" inner_product_param { num_output: 10 } }
layer { name: "aux/loss" type: "SoftmaxWithLoss" bottom: "aux" bottom: "label" top: "aux/loss" loss_weight: 0.3 }
layer { name: "one" type: "DummyData" top: "one"
  dummy_data_param { data_filler { value: 1 } shape { dim: 1 dim: 10 } } }
layer { name: "sum" type: "Bias" bottom: "ip" bottom: "one" top: "sum" bias_param { axis: 0 } }
"""
    net = convert(tmp_path, LENET + auxiliary, "--to-deploy", "--shape", "data=1x1x28x28")
    assert [layer.name for layer in net.layers] == ["conv1", "ip", "one", "sum", "prob"]
    assert "value: 1" in (tmp_path / "out.prototxt").read_text()


def test_a_merged_batch_norm_stays_merged(tmp_path: Path) -> None:
    bn = """layer { name: "bn" type: "BatchNorm" bottom: "conv1" top: "bn"
      batch_norm_param { scale_filler { value: 1 } bias_filler { value: 0 } } }\n"""
    text = LENET.replace('bottom: "conv1" top: "ip"', 'bottom: "bn" top: "ip"').replace(
        'layer { name: "ip"', bn + 'layer { name: "ip"'
    )
    net = to_deploy(parse_net(text), {"data": (1, 1, 28, 28)})
    (row,) = [row for row in analyse(net).rows if row.layer.name == "bn"]
    assert len(row.blobs) == 5


def test_to_train_val_and_back(tmp_path: Path) -> None:
    deployed = net_text(to_deploy(parse_net(LENET), {"data": (1, 1, 28, 28)}))
    trained = convert(tmp_path, deployed, "--to-train-val", "--data-layer", "lmdb", "--batch", "48")
    assert [layer.type for layer in trained.layers][:2] == ["Data", "Data"]
    assert trained.layers[-1].type == "Accuracy"
    text = (tmp_path / "out.prototxt").read_text()
    assert "batch_size: 48" in text and "crop_size: 28" in text and "# 48x20x24x24" in text
    run("check", tmp_path / "out.prototxt")
    again = to_deploy(trained, {"data": (1, 1, 28, 28)})
    assert [(one.name, one.type) for one in again.layers] == [
        (one.name, one.type) for one in parse_net(deployed).layers
    ]


def test_data_options_need_their_conversion(tmp_path: Path) -> None:
    assert "--to-train-val" in convert(tmp_path, LENET, "--batch", "3", code=2)


HEAD = 'input: "d" input_shape { dim: 1 dim: 4 dim: 8 dim: 8 }\n'


def one_layer(type_: str, params: str = "") -> str:
    return f'{HEAD}layer {{ name: "x" type: "{type_}" bottom: "d" top: "x" {params} }}'


@pytest.mark.parametrize(
    ("name", "text", "types"),
    [
        ("bvlc", one_layer("BN"), ["BatchNorm", "Scale"]),
        ("yjxiong", one_layer("BatchNorm"), ["BN"]),
        ("bvlc", one_layer("ReLU6"), ["Clip"]),
        (
            "ssd",
            one_layer("DepthwiseConvolution", "convolution_param { num_output: 4 kernel_size: 3 }"),
            ["Convolution"],
        ),
        ("yjxiong", 'layer { name: "i" type: "Input" top: "d" input_param { shape { dim: 1 dim: 2 } } }', []),
    ],
)
def test_said_otherwise_in_another_dialect(tmp_path: Path, name: str, text: str, types: list[str]) -> None:
    net = convert(tmp_path, text, "--to-dialect", name)
    assert [layer.type for layer in net.layers] == types
    before, after = analyse(parse_net(text)), analyse(net)
    assert after.complete and after.macs == before.macs
    assert [row.tops for row in after.rows][-1:] == [row.tops for row in before.rows][-1:] or not types


def test_rounding_of_pooling_is_renamed() -> None:
    floor = parse_net(one_layer("Pooling", "pooling_param { kernel_size: 3 stride: 2 round_mode: FLOOR }"))
    renamed = to_dialect(floor, find_dialect("brocolli"))
    assert "ceil_mode: false" in net_text(renamed)
    assert analyse(renamed).rows[0].tops == analyse(floor).rows[0].tops
    assert to_dialect(renamed, find_dialect("bvlc")).layers == floor.layers
    with pytest.raises(UnsupportedError, match=r"pooling_param\.round_mode"):
        to_dialect(floor, find_dialect("ssd"))


def test_fields_set_to_their_default_are_left_out() -> None:
    ceil = parse_net(one_layer("Pooling", "pooling_param { kernel_size: 3 round_mode: CEIL }"))
    assert "round_mode" not in net_text(to_dialect(ceil, find_dialect("ssd")))


def test_all_that_a_dialect_lacks_is_one_error(tmp_path: Path) -> None:
    text = (
        one_layer("Interp", "interp_param { zoom_factor: 2 }")
        + '\nlayer { name: "y" type: "Mish" bottom: "x" top: "y" odd: 1 }'
    )
    refusal = convert(tmp_path, text, "--to-dialect", "bvlc", code=1)
    assert all(word in refusal for word in ("(Interp)", "(Mish)", "odd", "corners"))
    assert not (tmp_path / "out.prototxt").exists()
    assert "'bvcl' is not one of 'bvlc', 'ssd'" in convert(tmp_path, text, "--to-dialect", "bvcl", code=2)


def test_a_layer_of_another_meaning_is_refused() -> None:
    net = parse_net(one_layer("Normalize", "norm_param { across_spatial: false }"))
    to_dialect(net, find_dialect("ssd"))
    with pytest.raises(UnsupportedError):
        to_dialect(net, find_dialect("happynear"))


def test_dialects_know_their_types() -> None:
    assert set(DIALECTS) == {name for name in DIALECTS if "Convolution" in layer_types_of(find_dialect(name))}
    assert "BatchNorm" not in layer_types_of(find_dialect("yjxiong")) and "Permute" in layer_types_of(
        find_dialect("brocolli")
    )


@pytest.mark.caffe
def test_the_types_of_the_installed_caffe() -> None:
    caffe = pytest.importorskip("caffe")
    assert layer_types_of(find_dialect("prototxt-gen")) <= set(caffe.layer_type_list())


# ---- files that are broken in every way


@pytest.mark.parametrize("command", ["summary", "check", "draw", "convert"])
@pytest.mark.parametrize("content", [b"", b"\0\1\2", b"layer {" * 100_000, b"\xff\xfe", b"item { id: 1 }", None])
def test_no_traceback(tmp_path: Path, command: str, content: bytes | None) -> None:
    path = tmp_path / "net.prototxt"
    if content is not None:
        path.write_bytes(content)
    more: list[str | Path] = ["-o", tmp_path / "o.dot"] if command in ("draw", "convert") else []
    words = ["convert", "prototxt"] if command == "convert" else [command]
    result = run(*words, path, *more, code=1)
    told = result.stderr or result.stdout
    assert told.startswith("error: ") and "Traceback" not in told


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "directory" in run("summary", tmp_path, code=1).stderr


MUTATIONS = (
    "{",
    "}",
    '"',
    "\0",
    "-1",
    "99999999999999999999999",
    "MAX",
    "layer",
    "\n",
    "nan",
    ":",
    '"d"',
    "bottom",
    "é",
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(0, 30), st.sampled_from(("", *MUTATIONS))), min_size=1, max_size=5
    ),
    st.sampled_from(
        (LENET, one_layer("Pooling", "pooling_param { kernel_size: 3 }"), "layers { layer { name: 'a' } }")
    ),
)
def test_mutated_texts_give_errors_at_worst(tmp_path: Path, cuts: list[tuple[int, int, str]], text: str) -> None:
    for start, length, put in cuts:
        at = start % (len(text) + 1)
        text = text[:at] + put + text[at + length :]
    path = write(tmp_path, text)
    commands = (["summary"], ["check"], ["draw", "-o", "o.dot"], ["convert", "prototxt", "-o", "o.prototxt"])
    for command in commands:
        words = [str(tmp_path / word) if word.startswith("o.") else word for word in command]
        result = CliRunner().invoke(cli, [*words, str(path), *(["--force"] if "-o" in command else [])])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code in (0, 1)
