"""The inputs of the PyTorch backend: batches of all kinds of data layers, and refused nets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen.common.errors import NetError, PrototxtGenError, UnsupportedError
from prototxt_gen.data.make import make
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.train.backend import Settings
from prototxt_gen.train.input_feed import FeedContext, InputFeed
from tests.support import torch_support as support
from tests.train.test_torch_backend import INPUT, TERMS, _images, _one_thread, start

__all__ = ["_one_thread", "start"]
ROOT = Path(__file__).resolve().parents[2]
Array = np.ndarray[Any, Any]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with one data set as LMDB, HDF5 and a list of image files."""
    import cv2

    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 256, (11, 6, 6, 3), dtype=np.uint8), np.arange(11) % 3
    np.savez(tmp_path / "a.npz", x=x, y=y)
    make(tmp_path / "a.npz", tmp_path / "lmdb")
    make(tmp_path / "a.npz", tmp_path / "hdf5", to="hdf5")
    for number, image in enumerate(x):
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    (tmp_path / "list").write_text("".join(f"{number}.png {y[number]}\n" for number in range(11)))
    return tmp_path


def _sources(folder: Path) -> dict[str, str]:
    augmented = json.dumps({"source": str(folder / "lmdb"), "batch_size": 4, "augment": {"crop": 4, "mirror": True}})
    return {
        "Data": f'data_param {{ source: "{folder}/lmdb" batch_size: 4 backend: LMDB }} '
        "transform_param { crop_size: 4 mirror: true mean_value: 100 scale: 0.5 }",
        "HDF5Data": f'hdf5_data_param {{ source: "{folder}/hdf5/list.txt" batch_size: 4 shuffle: true }}',
        "ImageData": f'image_data_param {{ source: "{folder}/list" root_folder: "{folder}/" batch_size: 4 '
        "shuffle: true new_height: 5 new_width: 7 }",
        "DummyData": "dummy_data_param { shape { dim: 4 dim: 2 } shape { dim: 4 } "
        'data_filler { type: "gaussian" } data_filler { value: 3 } }',
        "Python": 'python_param { module: "prototxt_gen.data.caffe_layer" layer: "AugmentedData" '
        f"param_str: '{augmented}' }}",
    }


SHAPES = {
    "Data": (4, 3, 4, 4),
    "HDF5Data": (4, 3, 6, 6),
    "ImageData": (4, 3, 5, 7),
    "DummyData": (4, 2),
    "Python": (4, 3, 4, 4),
}


def _fed(text: str, **place: Any) -> InputFeed:
    return InputFeed(parse_net(text), FeedContext("TRAIN", 7, **place))


@pytest.mark.parametrize("type_", SHAPES)
def test_any_batch_of_any_data_layer(type_: str, pictures: Path) -> None:
    """Batches are equal for any number of workers and any order; process n of N gets every N-th batch."""
    text = f'layer {{ name: "d" type: "{type_}" top: "data" top: "label" {_sources(pictures)[type_]} }}'
    feeds = [_fed(text), _fed(text, workers=2), *(_fed(text, rank=rank, ranks=2) for rank in range(2))]
    alone = [feeds[0].batch_at(turn) for turn in range(6)]
    assert alone[0]["data"].shape == SHAPES[type_] == feeds[0].shapes["data"]
    assert len({batch["data"].tobytes() for batch in alone}) == 6
    for turn in (0, 1, 2, 5, 3):
        assert _same(feeds[1].batch_at(turn), alone[turn])
    for turn in range(3):
        assert _same(feeds[2].batch_at(turn), alone[2 * turn])
        assert _same(feeds[3].batch_at(turn), alone[2 * turn + 1])
    for feed in feeds:
        feed.close()


def test_augmented_data_source_is_found_beside_the_solver(pictures: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The source is found from any folder and in worker processes; the working folder has precedence."""
    layer = f'layer {{ name: "d" type: "Python" top: "data" top: "label" {_sources(pictures)["Python"]} }}'
    named = layer.replace(str(pictures / "lmdb"), "lmdb")
    assert named != layer
    expected = _fed(layer).batch_at(3)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for workers in (0, 1):
        fed = _fed(named, solver=str(pictures / "solver.prototxt"), workers=workers)
        assert _same(fed.batch_at(3), expected)
        fed.close()
    with pytest.raises(PrototxtGenError, match=r"layer 'd' \(Python\): lmdb does not exist"):
        _fed(named, solver=str(elsewhere / "solver.prototxt"))


def _same(one: dict[str, Array], other: dict[str, Array]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        ('type: "Input" input_param { shape { dim: 2 } }', NetError, r"'d' \(Input\): nothing feeds it"),
        (
            'type: "MemoryData" memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 }',
            NetError,
            "nothing feeds it",
        ),
        ('type: "WindowData"', UnsupportedError, r"'d' \(WindowData\): its data can only be read by Caffe itself"),
        ('type: "Data" data_param { source: "gone" batch_size: 2 }', PrototxtGenError, r"'d' \(Data\): .*gone"),
    ],
)
def test_inputs_without_data_are_refused(layer: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _fed(f'layer {{ name: "d" top: "data" top: "label" {layer} }}')


@pytest.mark.parametrize(
    ("net", "settings", "message"),
    [
        (INPUT + 'layer { name: "p" type: "Power" bottom: "data" top: "p" }', {}, "it has no loss in phase TRAIN"),
        (INPUT + TERMS.replace("loss_weight: 0.25", "loss_weight: 1 loss_weight: 1"), {}, "'sum'.*loss_weight"),
        (
            INPUT + 'layer { name: "d" type: "Dropout" bottom: "data" top: "data" phase: TEST }' + TERMS,
            {},
            r"'d' \(Dropout\): it has phase: TEST, but the net runs in the TRAIN phase",
        ),
        (INPUT + TERMS, {"precision": "fp8"}, "there is no precision 'fp8'"),
        (INPUT + TERMS, {"gpu": 99}, "there is no GPU 99"),
        (INPUT + TERMS.replace('type: "xavier"', 'type: "xaviar"', 1), {}, "'first'.*its weight: .*'xavier'"),
        (
            INPUT + TERMS.replace("propagate_down: false", "param {} param {} param {}", 1),
            {},
            "3 param, but only 2 learned blobs",
        ),
    ],
)
def test_untrainable_nets_are_refused(net: str, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = support.write(tmp_path, net.replace("BATCH", "4"), 'base_lr: 0.1 lr_policy: "fixed"')
    with pytest.raises(PrototxtGenError, match=message):
        support.backend(file, _images(4), Settings(workers=0, **settings))
