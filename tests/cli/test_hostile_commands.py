"""Hostile binaries through the commands: a result, or an error in a sentence, within 2 s and 500 MB, every time."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prototxt_gen import analyse, caffemodel, parse_net
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import Weights, write
from tests.support.hostile_support import damaged, faults, run
from tests.support.sane_weights import sane_weights

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="this system does not tell a process's peak memory"
    ),
]
NET = """name: "small" input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "n" type: "BatchNorm" bottom: "c" top: "c" }
layer { name: "s" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
MANY = 60
Command = list["str | Path"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a net, its weights in both forms, a picture, a data set, a mean and converted models."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "net.prototxt").write_text(NET)
    analysis = analyse(parse_net(NET))
    for name in ("w.caffemodel", "w.caffemodel.h5"):
        write(folder / name, analysis, sane_weights(analysis), find_dialect("bvlc"))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 8, 8, 3), dtype="uint8")
    np.savez(folder / "set.npz", x=pixels, y=np.arange(4))
    np.save(folder / "x.npy", pixels[:1].transpose(0, 3, 1, 2).astype("float32"))
    np.savez(folder / "x.npz", data=np.load(folder / "x.npy"))
    cv2.imwrite(str(folder / "p.png"), pixels[0])
    cv2.imwrite(str(folder / "p.jpg"), pixels[0])
    caffemodel.write_binaryproto(folder / "mean.binaryproto", rng.random((1, 3, 8, 8), dtype="float32"))
    net, weights = folder / "net.prototxt", folder / "w.caffemodel"
    made: list[Command] = [
        ["convert", "onnx", net, weights, "-o", folder / "m.onnx", "--no-fold", "--no-verify"],
        ["convert", "pytorch", net, weights, "-o", folder / "m", "--no-verify"],
        ["convert", "pytorch", net, weights, "-o", folder / "m.pt2", "--to", "pt2", "--no-verify"],
    ]
    assert [one.code for one in run(made, folder)] == [0, 0, 0]
    state = load_file(folder / "m" / "model.safetensors")
    torch.save(state, folder / "m.pt")
    torch.save({"state_dict": state, "epoch": 1}, folder / "m.pth", _use_new_zipfile_serialization=False)
    return folder


def attack(sound: Path, files: Sequence[bytes], commands: Sequence[Command], tmp_path: Path) -> None:
    """Put each file in the place of the sound one, in one of the commands by turns, and see that nothing goes wrong."""
    everything = [*commands]
    for number, content in enumerate(files):
        path = tmp_path / f"{number}" / sound.name
        path.parent.mkdir()
        path.write_bytes(content)
        command = commands[number % len(commands)]
        everything.append([path if word == sound else word for word in command])
    told = run(everything, tmp_path)
    wrong = faults(told, everything, len(commands))
    assert not wrong, "\n".join(wrong)
    assert sum(bool(one.sentence) for one in told) > len(files) // 4, "much of the damage is seen"


def reading(place: Path, weights: Path, out: Path) -> list[Command]:
    """Return the commands that read a net's weights."""
    net = place / "net.prototxt"
    renewed: Command = ["convert", "caffemodel", weights, "-o", out / "o.caffemodel", "--force"]
    return [
        ["convert", "onnx", net, weights, "-o", out / "o.onnx", "--no-verify", "--force"],
        ["convert", "pytorch", net, weights, "-o", out / "o", "--no-verify", "--force"],
        *([] if weights.suffix == ".h5" else [renewed]),  # HDF5 does not tell the types
        ["convert", "caffemodel", weights, "-o", out / "o.caffemodel", "--net", net, "--force"],
        ["verify", net, weights, "--against", "torch,onnx", "--json"],
        ["eval", net, weights, "--data", place / "set.npz"],
        ["classify", net, weights, place / "p.png"],
    ]


def not_a_number(place: Path, folder: Path) -> list[bytes]:
    """Return weights full of NaN, and of infinities."""
    analysis = analyse(parse_net(NET))
    sound, files = sane_weights(analysis), []
    for value in (np.nan, np.inf, -np.inf, 3e38):
        blobs = {
            name: {role: np.full_like(a, value) for role, a in roles.items()} for name, roles in sound.blobs.items()
        }
        write(folder / "odd", analysis, Weights(blobs), find_dialect("bvlc"), force=True)
        files.append((folder / "odd").read_bytes())
    return files


@pytest.mark.parametrize("name", ["w.caffemodel", "w.caffemodel.h5"])
def test_weights(name: str, place: Path, tmp_path: Path) -> None:
    files = damaged((place / name).read_bytes(), MANY)
    files += not_a_number(place, tmp_path) * 7 if name == "w.caffemodel" else []
    attack(place / name, files, reading(place, place / name, tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_models_to_be_run(name: str, place: Path, tmp_path: Path) -> None:
    commands: list[Command] = [["eval", place / name, "--data", place / "set.npz"]]
    if name == "m.onnx":
        usual = [place / "net.prototxt", place / "w.caffemodel"]
        commands.append(["verify", *usual, "--against", "torch", "--model", place / name])
    attack(place / name, damaged((place / name).read_bytes(), MANY), commands, tmp_path)


@pytest.mark.parametrize("name", ["m.onnx", "m/model.safetensors", "m.pt", "m.pth"])
def test_models_on_their_way_back(name: str, place: Path, tmp_path: Path) -> None:
    out: Command = ["-o", tmp_path / "back.caffemodel", "--force"]
    commands: list[Command] = [["convert", "caffemodel", place / name, *out, "--net", place / "net.prototxt"]]
    if not name.startswith("m.pt"):  # these do not carry their net
        commands.append(["convert", "caffemodel", place / name, *out])
    attack(place / name, damaged((place / name).read_bytes(), MANY), commands, tmp_path)


@pytest.mark.parametrize("name", ["p.png", "p.jpg"])
def test_pictures(name: str, place: Path, tmp_path: Path) -> None:
    usual = [place / "net.prototxt", place / "w.caffemodel"]
    commands: list[Command] = [
        ["classify", *usual, place / name],
        ["verify", *usual, "--against", "torch,onnx", "--input", place / name],
    ]
    attack(place / name, damaged((place / name).read_bytes(), MANY), commands, tmp_path)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_arrays(name: str, place: Path, tmp_path: Path) -> None:
    usual = [place / "net.prototxt", place / "w.caffemodel"]
    commands: list[Command] = [["verify", *usual, "--against", "torch,onnx", "--input", place / name]]
    attack(place / name, damaged((place / name).read_bytes(), MANY), commands, tmp_path)


def test_pictures_that_claim_a_billion_pixels(place: Path, tmp_path: Path) -> None:
    """The header claims a size, for which OpenCV allocates memory before it reads the pixels."""
    png = (place / "p.png").read_bytes()
    bitmap = cv2.imencode(".bmp", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    files = [bitmap[:18] + b"\0\x7f\0\0\0\x7f\0\0" + bitmap[26:], b"P6\n32000 32000\n255\n\0\0\0"]
    header = b"IHDR" + (30000).to_bytes(4, "big") * 2 + png[24:29]
    files += [png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]]
    files += [png[:33] + b"\xff\xff\xff\xf0IDAT" + png[41:]]
    command: Command = ["classify", place / "net.prototxt", place / "w.caffemodel", place / "p.png"]
    attack(place / "p.png", files, [command], tmp_path)


def test_means(place: Path, tmp_path: Path) -> None:
    usual, mean = [place / "net.prototxt", place / "w.caffemodel"], place / "mean.binaryproto"
    commands: list[Command] = [
        ["convert", "onnx", *usual, "--mean-file", mean, "-o", tmp_path / "o.onnx", "--no-verify", "--force"],
        ["eval", *usual, "--data", place / "set.npz", "--mean-file", mean],
    ]
    attack(mean, damaged(mean.read_bytes(), MANY), commands, tmp_path)
