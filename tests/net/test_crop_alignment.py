"""Crop without crop_param: at offset 0, or where the coordinates of its bottoms agree, as in the forks of 2015."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from converters import read_net_with_weights, to_torch, verify
from prototxt_gen import parse_net
from prototxt_gen.checks import check_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import NetError, UnsupportedError
from prototxt_gen.layers.vision.crop import CropParameter
from prototxt_gen.net.crop_alignment import with_crop_offsets
from prototxt_gen.net.render import net_text
from prototxt_gen.train.training_run import TrainingJob, run
from prototxt_gen.weights import Weights

DATA = 'input: "data" input_shape { dim: 1 dim: 3 dim: 9 dim: 9 }\n'
CONVOLUTION = """layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 3 } }
"""
CROP = 'layer { name: "crop" type: "Crop" bottom: "data" bottom: "conv" top: "out" }\n'
NET = DATA + CONVOLUTION + CROP
V1_NET = (
    DATA + "layers { name: 'conv' type: CONVOLUTION bottom: 'data' top: 'conv' "
    "convolution_param { num_output: 2 kernel_size: 3 } }\n"
    "layers { name: 'crop' type: CROP bottom: 'data' bottom: 'conv' top: 'out' }\n"
)


def weights() -> Weights:
    rng = np.random.default_rng(0)
    arrays = {"weight": rng.standard_normal((2, 3, 3, 3)).astype("f4"), "bias": np.zeros(2, "f4")}
    return Weights({"conv": arrays})


def crop_offsets(text: str, rule: str | None = "coordinates") -> list[tuple[int, ...]]:
    net, _ = with_crop_offsets(parse_net(text, "net.prototxt").at(), rule)
    return [layer.get(CropParameter).offset for layer in net.layers if layer.type == "Crop"]


@pytest.mark.parametrize(("rule", "first"), [("coordinates", 1), ("offset", 0)])
def test_rule_decides_where_the_data_are_cut(rule: str, first: int) -> None:
    images = torch.randn(1, 3, 9, 9)
    module = to_torch(parse_net(NET, "net.prototxt"), weights(), crop_rule=rule)
    assert torch.equal(module(images), images[:, :, first : first + 7, first : first + 7])
    report = verify(parse_net(NET, "net.prototxt"), weights(), crop_rule=rule, against=("pycaffe", "torch", "onnx"))
    assert report.verified


def test_net_with_two_meanings_is_an_error_that_names_the_option() -> None:
    with pytest.raises(NetError, match=r"net.prototxt: layer 'crop' \(Crop\): .* at 1 and 1.*--crop-rule offset or"):
        read_net_with_weights(parse_net(NET, "net.prototxt"), weights())


def test_check_warns_of_two_meanings() -> None:
    problems = [str(problem) for problem in check_net(parse_net(NET))]
    assert any("--crop-rule" in problem for problem in problems)
    assert not any("--crop-rule" in str(problem) for problem in check_net(parse_net(NET.replace("3 }", "1 }"))))


@pytest.mark.parametrize(
    ("other_layer", "offset"),
    [
        ('layer { name: "c" type: "Crop" bottom: "data" bottom: "conv" top: "c" crop_param { offset: 2 } }', 0),
        ('layer { name: "d" type: "ImageLabelmapData" top: "label" }', 1),
    ],
)
def test_other_layers_tell_the_rule(other_layer: str, offset: int) -> None:
    net, _ = with_crop_offsets(parse_net(NET + other_layer).at())
    assert {*net.layer("crop").get(CropParameter).offset} == {offset}


@pytest.mark.parametrize(
    "between",
    [
        'layer { name: "s" type: "Softmax" bottom: "data" top: "s" }\n' + CONVOLUTION.replace('"data"', '"s"'),
        CONVOLUTION.replace("3 }", "1 }"),
        CONVOLUTION.replace("3 }", "2 }"),
        CONVOLUTION.replace("3 }", "3 stride: 2 }"),
        CONVOLUTION.replace("3 }", "3 pad: 2 }"),
    ],
    ids=["no map", "offset 0", "between pixels", "scaled", "before the first pixel"],
)
def test_net_with_one_meaning_needs_no_rule(between: str) -> None:
    net = parse_net(DATA + between + CROP)
    unchanged, remarks = with_crop_offsets(net.at())
    assert (unchanged.layers, remarks) == (net.at().layers, [])


def test_coordinates_that_cannot_be_compared_are_an_error() -> None:
    with pytest.raises(NetError, match=r"layer 'crop' \(Crop\): .*agree: one bottom is a scaled form of the other"):
        crop_offsets(DATA + CONVOLUTION.replace("3 }", "3 stride: 2 }") + CROP)


def test_v1_layer_always_aligns_coordinates() -> None:
    net = parse_net(V1_NET)
    assert net.layer("crop").get(CropParameter) == CropParameter(axis=2, offset=(1, 1))
    assert parse_net(net_text(net)).layer("crop").get(CropParameter).offset == (1, 1)
    images = torch.randn(1, 3, 9, 9)
    assert torch.equal(to_torch(net, weights())(images), images[:, :, 1:8, 1:8])


def test_v1_layer_of_each_phase_has_the_offset_of_its_phase() -> None:
    _, convolution, crop, _ = V1_NET.split("\n")
    lines = [
        f"{text[:-2].replace('out', phase).replace('size: 3', f'size: {kernel}')} include {{ phase: {phase} }} }}"
        for phase, kernel in (("TRAIN", 3), ("TEST", 5))
        for text in (convolution, crop)
    ]
    net = parse_net(DATA + "\n".join(lines))
    assert [net.at(phase).layer("crop").get(CropParameter).offset for phase in ("TRAIN", "TEST")] == [(1, 1), (2, 2)]


def test_v1_layer_that_cannot_be_aligned_is_not_converted() -> None:
    text = V1_NET.replace("kernel_size: 3", "kernel_size: 3 stride: 2")
    for one in (parse_net(text), parse_net(net_text(parse_net(text)))):
        with pytest.raises(UnsupportedError, match=r"layer 'crop' \(Crop\): .*crop_rule"):
            read_net_with_weights(one, weights())


def layer_text(name: str, type_: str, bottoms: list[str], top: str, params: str = "") -> str:
    sources = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{ name: "{name}" type: "{type_}" {sources} top: "{top}" {params} }}\n'


def hed() -> str:
    """Return a net with the windows of HED's deploy net: five stages, each cut to the size of the image."""
    text, blob = 'input: "data" input_shape { dim: 1 dim: 3 dim: 64 dim: 64 }\n', "data"
    for stage, convolutions in enumerate((2, 2, 3, 3, 3), 1):
        for index in range(1, convolutions + 1):
            pad = 35 if (stage, index) == (1, 1) else 1
            name = f"conv{stage}_{index}"
            params = f"convolution_param {{ num_output: 1 pad: {pad} kernel_size: 3 }}"
            text += layer_text(name, "Convolution", [blob], name, params)
            text += layer_text(f"relu{stage}_{index}", "ReLU", [name], name)
            blob = name
        score = f"score{stage}"
        text += layer_text(score, "Convolution", [blob], score, "convolution_param { num_output: 1 kernel_size: 1 }")
        if stage > 1:
            scale = 2 ** (stage - 1)
            params = f"convolution_param {{ num_output: 1 kernel_size: {2 * scale} stride: {scale} }}"
            text += layer_text(f"up{stage}", "Deconvolution", [score], score + "-up", params)
        text += layer_text("crop", "Crop", [score + "-up" * (stage > 1), "data"], f"upscore{stage}")
        if stage < 5:
            params = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
            text += layer_text(f"pool{stage}", "Pooling", [blob], f"pool{stage}", params)
            blob = f"pool{stage}"
    return text


def test_offsets_of_hed() -> None:
    assert crop_offsets(hed()) == [(34, 34), (35, 35), (36, 36), (38, 38), (42, 42)]


def walked_offset(layers: dict[str, tuple[str, float, float]], data: str, like: str) -> float | None:
    """Return the offset as CropLayer::LayerSetUp of s9xie/hed finds it: it walks back from both bottoms.

    `layers` has for each top its bottom, and the scale and shift of its layer's coord_map.
    """
    passed, blob = [data], data
    while blob in layers:
        blob = layers[blob][0]
        passed.append(blob)
    meeting = like
    while meeting not in passed:
        meeting = layers[meeting][0]
    maps = []
    for bottom in (data, like):
        scale, shift, blob = 1.0, 0.0, bottom
        while blob != meeting:
            blob, layer_scale, layer_shift = layers[blob]
            scale, shift = scale * layer_scale, scale * layer_shift + shift
        maps.append((scale, shift))
    (data_scale, data_shift), (like_scale, like_shift) = maps
    if like_scale != data_scale:
        return None
    offset = -(like_shift - like_scale * data_shift / data_scale)
    return offset if offset >= 0 and offset == round(offset) else None


@pytest.mark.parametrize("seed", range(30))
def test_offsets_are_those_of_the_walk_in_the_fork(seed: int) -> None:
    rng = random.Random(seed)
    text, layers = 'input: "b0" input_shape { dim: 1 dim: 1 dim: 256 dim: 256 }\n', {}
    for index in range(1, 12):
        bottom, top = f"b{rng.randrange(max(0, index - 3), index)}", f"b{index}"
        type_ = rng.choice(["Convolution", "Pooling", "Deconvolution", "ReLU"])
        kernel, stride = rng.choice([1, 2, 3, 4, 5]), rng.choice([1, 1, 1, 2])
        pad = rng.randrange(kernel)
        window = f"kernel_size: {kernel} stride: {stride} pad: {pad}"
        params = {"Pooling": f"pooling_param {{ {window} }}", "ReLU": ""}
        convolution = f"convolution_param {{ num_output: 1 {window} }}"
        text += layer_text(top, type_, [bottom], top, params.get(type_, convolution))
        scale, shift = float(stride), (kernel - 1) / 2 - pad
        forward = {"Deconvolution": (scale, shift), "ReLU": (1.0, 0.0)}
        layers[top] = (bottom, *forward.get(type_, (1 / scale, -shift / scale)))
    for data in range(12):
        for like in range(12):
            crop = layer_text("crop", "Crop", [f"b{data}", f"b{like}"], "out")
            wanted = walked_offset(layers, f"b{data}", f"b{like}")
            if wanted is not None:
                assert crop_offsets(text + crop) == [(wanted, wanted)], (data, like)
            else:
                with pytest.raises(NetError, match="coordinates of its bottoms agree"):
                    crop_offsets(text + crop)


def test_crop_of_a_crop_counts_the_first_offset() -> None:
    second = layer_text("conv2", "Convolution", ["out"], "conv2", "convolution_param { num_output: 1 kernel_size: 5 }")
    assert crop_offsets(NET + second + layer_text("crop2", "Crop", ["data", "conv2"], "out2")) == [(1, 1), (3, 3)]


def test_training_needs_the_rule_and_follows_it(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } '
        'data_filler { type: "gaussian" } } }\n' + CONVOLUTION.replace("num_output: 2", "num_output: 3") + CROP
        + 'layer { name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "conv" top: "loss" }'
    )  # fmt: skip
    solver = tmp_path / "solver.prototxt"
    solver.write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "{tmp_path}/s" '
        "random_seed: 3"
    )
    with pytest.raises(NetError, match="--crop-rule"):
        run(TrainingJob(solver))
    losses = {}
    for rule in ("coordinates", "offset"):
        job = TrainingJob(solver, crop_rule=rule, restart=True)
        net = job.solver_with_overrides().read_train_net()
        assert set(net.layer("crop").get(CropParameter).offset) == {int(rule == "coordinates")}
        run(job)
        losses[rule] = next(tmp_path.glob("*metrics*.csv")).read_text().splitlines()[1].split(",")[:3]
    assert losses["coordinates"] != losses["offset"]


@pytest.mark.parametrize(
    "command",
    ["convert onnx", "convert pytorch", "convert bn", "verify", "eval", "classify", "train", "convert prototxt"],
)
def test_commands_that_run_or_convert_a_net_have_the_option(command: str) -> None:
    text = CliRunner().invoke(cli, [*command.split(), "--help"]).output
    assert "--crop-rule [coordinates|offset]" in " ".join(text.split())


def test_convert_prototxt_writes_the_offsets(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    arguments = ["convert", "prototxt", str(tmp_path / "net.prototxt"), "-o", str(tmp_path / "out.prototxt")]
    result = CliRunner().invoke(cli, [*arguments, "--crop-rule", "coordinates"])
    assert result.exit_code == 0, result.output
    assert parse_net((tmp_path / "out.prototxt").read_text()).layer("crop").get(CropParameter).offset == (1, 1)


def test_command_ends_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(DATA + CONVOLUTION.replace("Convolution", "Pooling").replace(
        "convolution_param { num_output: 2 kernel_size: 3 }", "pooling_param { kernel_size: 3 }") + CROP)  # fmt: skip
    arguments = ["convert", "onnx", str(tmp_path / "net.prototxt"), "-o", str(tmp_path / "net.onnx")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert "--crop-rule" in result.output
    assert CliRunner().invoke(cli, [*arguments, "--crop-rule", "coordinates"]).exit_code == 0
