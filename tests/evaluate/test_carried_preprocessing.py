"""The preprocessing of a train_val travels with its deploy net and its converted forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import to_onnx, to_torch
from converters.common.preprocessing import Preprocessing, preprocessing_of_net
from prototxt_gen.caffemodel import write_binaryproto
from prototxt_gen.data.make import make
from prototxt_gen.models import model
from prototxt_gen.net.prototxt_reader import read_net
from tests.support.evaluation_support import call, call_json, npz, tiny, train_val

SHAPE = ("--shape", "data=1x3x12x12")
UNKNOWN = "nothing says how images are preprocessed"
LAYER = (
    'layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } '
    'transform_param { crop_size: 12 TRANSFORM } data_param { source: "lmdb" batch_size: 24 backend: LMDB } }'
)
TRANSFORMS = (
    "scale: 0.02 mean_value: 100",
    "mean_value: 104 mean_value: 117 mean_value: 123",
    'mean_file: "mean.binaryproto" scale: 0.01',
    "",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder with a classifier, its weights, a data set and its mean."""
    monkeypatch.chdir(tmp_path)
    npz(tmp_path / "set.npz", 24, 16)
    make(tmp_path / "set.npz", tmp_path / "lmdb")
    write_binaryproto(tmp_path / "mean.binaryproto", np.full((1, 3, 16, 16), 90.0, "float32"))
    tiny(tmp_path)
    return tmp_path


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_every_form_classifies_as_the_train_val(here: Path, transform: str) -> None:
    net, weights = here / "train_val.prototxt", here / "net.caffemodel"
    net.write_text(train_val(LAYER.replace("TRANSFORM", transform)))
    expected = call_json("eval", net, weights)
    deploy = here / "sub" / "deploy.prototxt"
    deploy.parent.mkdir()
    assert call("convert", "prototxt", net, "-o", deploy, "--to-deploy", *SHAPE).exit_code == 0
    rewritten = here / "rewritten.prototxt"
    assert call("convert", "prototxt", deploy, "-o", rewritten).exit_code == 0
    to_onnx(net, weights, here / "a.onnx", shapes={"data": (1, 3, 12, 12)})
    to_onnx(deploy, weights, here / "b.onnx")
    to_torch(deploy, weights, here / "folder")
    data: tuple[Any, ...] = ("--data", here / "lmdb")
    for words in ((deploy, weights), (rewritten, weights), (here / "a.onnx",), (here / "b.onnx",), (here / "folder",)):
        done = call("eval", *words, *data)
        assert UNKNOWN not in done.stderr, words
        found = call_json("eval", *words, *data)
        assert found["confusion"] == expected["confusion"], words
        assert found["preprocessing"] == expected["preprocessing"], words


def test_unknown_preprocessing_is_warned_of(here: Path) -> None:
    files = (here / "deploy.prototxt", here / "net.caffemodel")
    data: tuple[Any, ...] = ("--data", here / "set.npz", "--resize", "12x12")
    assert UNKNOWN in call("eval", *files, *data).stderr
    assert UNKNOWN not in call("eval", *files, *data, "--mean", "0").stderr
    assert UNKNOWN not in call("eval", *files, *data, "--scale", "0.5").stderr
    to_onnx(*files, here / "net.onnx")
    assert UNKNOWN in call("eval", here / "net.onnx", *data).stderr
    import cv2

    assert cv2.imwrite(str(here / "a.png"), np.zeros((14, 14, 3), np.uint8))
    assert UNKNOWN in call("classify", *files, here / "a.png").stderr
    assert UNKNOWN not in call("classify", *files, here / "a.png", "--mean", "104,117,123").stderr


def test_image_files_are_resized_as_in_the_train_val(here: Path) -> None:
    """A deploy net made of a train_val with new_height and crop_size cuts out the same centre."""
    import cv2

    rng = np.random.default_rng(1)
    assert cv2.imwrite(str(here / "a.png"), rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    (here / "list.txt").write_text("a.png 0\n")
    layer = LAYER.replace("TRANSFORM", "mean_value: 100 scale: 0.02").replace('"Data"', '"ImageData"')
    layer = layer[: layer.index("data_param")] + (
        'image_data_param { source: "list.txt" batch_size: 1 new_height: 18 new_width: 20 } }'
    )
    net, weights = here / "train_val.prototxt", here / "net.caffemodel"
    net.write_text(train_val(layer))
    deploy = here / "made.prototxt"
    assert call("convert", "prototxt", net, "-o", deploy, "--to-deploy").exit_code == 0
    expected = call("classify", net, weights, here / "a.png").stdout
    assert call("classify", deploy, weights, here / "a.png").stdout == expected
    assert preprocessing_of_net(read_net(deploy)).channel_order == "BGR"


def test_emitted_deploy_nets_carry_it(tmp_path: Path) -> None:
    model("attention-56-cifar", mean=(10.0, 20.0, 30.0), scale=0.5).write(tmp_path)
    deploy = preprocessing_of_net(read_net(tmp_path / "deploy.prototxt"))
    train = preprocessing_of_net(read_net(tmp_path / "train_val.prototxt").at("TEST"))
    assert (deploy.mean, deploy.scale) == (train.mean, train.scale) == ((10.0, 20.0, 30.0), 0.5)


def test_damaged_comment_is_no_preprocessing(tmp_path: Path) -> None:
    for text in ("{", "[1]", "3"):
        (tmp_path / "net.prototxt").write_text(f'# prototxt-gen preprocessing: {text}\ninput: "x"\n')
        assert not preprocessing_of_net(read_net(tmp_path / "net.prototxt"))
    assert Preprocessing.from_dict(Preprocessing((1.0,), 2.0, "RGB", None, (4, 5)).as_dict()).resize == (4, 5)
