"""Batches of data layers as a pure function of (seed, batch index), with records in Caffe's order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.data.data_set_reader import open_dataset
from prototxt_gen.data.info import mean
from prototxt_gen.data.make import make
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.train.batch_prefetch import Prefetcher
from prototxt_gen.train.data_layer_batches import DataLayerBatches, batches_of
from prototxt_gen.train.data_shapes import batch_size, data_shapes
from tests.support import data_samples as samples
from tests.support.caffe_support import caffe_or_skip

Array = np.ndarray[Any, Any]
COUNT = 10


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LMDB, HDF5 files and an image list of the same ten images, 3 x 12 x 16, and their mean image."""
    folder = tmp_path_factory.mktemp("sets")
    src = samples.class_folders(folder / "src", each=COUNT // 2)
    make(src, folder / "lmdb")
    made = make(src, folder / "h5", "hdf5", file_bytes=4 * 3 * 12 * 16 * 4)
    assert made.source == folder / "h5" / "list.txt"
    mean(folder / "lmdb", folder / "mean.binaryproto")
    lines = [f"{file.relative_to(src)} {label}" for label, name in enumerate(("cat", "dog"))
             for file in sorted((src / name).iterdir())]  # fmt: skip
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    return folder


TRANSFORM = "transform_param { crop_size: 9 mirror: true scale: 0.5 mean_file: 'MEAN' }"
TEXTS = {
    "lmdb": "type: 'Data' data_param { source: 'lmdb' batch_size: 4 backend: LMDB }",
    "lmdb, cropped": f"type: 'Data' {TRANSFORM} data_param {{ source: 'lmdb' batch_size: 4 backend: LMDB }}",
    "list": "type: 'ImageData' image_data_param { source: 'list.txt' root_folder: 'src/' batch_size: 4 }",
    "list, shuffled": f"type: 'ImageData' {TRANSFORM} "
    "image_data_param { source: 'list.txt' root_folder: 'src/' batch_size: 4 shuffle: true }",
    "hdf5": "type: 'HDF5Data' hdf5_data_param { source: 'h5/list.txt' batch_size: 4 }",
    "hdf5, shuffled": "type: 'HDF5Data' hdf5_data_param { source: 'h5/list.txt' batch_size: 4 shuffle: true }",
}


def text(sets: Path, which: str, name: str = "d") -> str:
    """Return the prototxt of a data layer."""
    filled = TEXTS[which].replace("source: '", f"source: '{sets}/").replace("MEAN", f"{sets}/mean.binaryproto")
    filled = filled.replace("root_folder: '", f"root_folder: '{sets}/")
    return f"layer {{ name: '{name}' top: 'data' top: 'label' {filled} }}"


def batches(sets: Path, which: str, phase: str = "TRAIN", seed: int = 1, name: str = "d") -> DataLayerBatches:
    return batches_of(parse_net(text(sets, which, name)).layers[0], phase, seed)


def equal(one: tuple[Array, ...], other: tuple[Array, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("which", ["lmdb", "list", "hdf5"])
def test_records_come_in_order_and_repeat(sets: Path, which: str) -> None:
    whole = list(open_dataset(sets / "lmdb"))
    source = batches(sets, which)
    for number in (0, 1, 2, 7):
        data, labels = source.make(number)
        records = [whole[(4 * number + place) % COUNT] for place in range(4)]
        np.testing.assert_array_equal(data, [image for image, _ in records])
        np.testing.assert_array_equal(labels, [label for _, label in records])
        assert data.dtype == labels.dtype == np.float32


@pytest.mark.parametrize("which", list(TEXTS))
def test_a_batch_depends_only_on_its_index(sets: Path, which: str) -> None:
    forward = [batches(sets, which).make(number) for number in range(6)]
    source = batches(sets, which)
    for number in (5, 0, 3, 3, 1):
        assert equal(source.make(number), forward[number])


@pytest.mark.parametrize("which", ["list, shuffled", "hdf5, shuffled"])
def test_every_epoch_holds_each_record_once_in_a_new_order(sets: Path, which: str) -> None:
    source = batches(sets, which)
    order = [source._sample_index(number, place) for number in range(5) for place in range(4)]
    assert sorted(order[:COUNT]) == sorted(order[COUNT:]) == list(range(COUNT))
    assert order[:COUNT] != order[COUNT:]
    other = batches(sets, which, seed=2)
    assert order[:COUNT] != [other._sample_index(*divmod(number, 4)) for number in range(COUNT)]


def test_randomness_differs_by_seed_layer_and_batch_but_only_in_training(sets: Path) -> None:
    first = batches(sets, "lmdb, cropped").make(0)
    again = batches(sets, "lmdb, cropped").make(5)  # the same records: 5 batches of 4 are two epochs
    np.testing.assert_array_equal(first[1], again[1])
    others = [batches(sets, "lmdb, cropped", seed=2), batches(sets, "lmdb, cropped", name="e")]
    for other in (again, *(source.make(0) for source in others)):
        assert not np.array_equal(first[0], other[0])
    assert first[0].shape == (4, 3, 9, 9)


def test_prefetching_changes_nothing(sets: Path) -> None:
    source = batches(sets, "lmdb, cropped")
    for threads in (0, 3):
        feed = Prefetcher(source, threads)
        assert equal(feed.peek(), source.make(0))
        for number in range(5):
            assert equal(feed.next(), source.make(number))
        for number in (11, 11, 12, 2):
            feed.seek(number)
            assert equal(feed.peek(), source.make(number))
            assert equal(feed.next(), source.make(number))
        feed.close()


def test_shapes_are_known_before_training(sets: Path) -> None:
    net = parse_net(text(sets, "lmdb, cropped"))
    shapes = data_shapes(net)
    assert shapes == {"data": (4, 3, 9, 9), "label": (4,)}
    assert batch_size(net, shapes) == 4


@pytest.mark.parametrize(("change", "words"), [
    (("lmdb'", "nowhere'"), r"layer 'd' \(Data\): .*nowhere does not exist"),
    (("batch_size: 4", "batch_size: 0"), r"layer 'd' \(Data\): it needs a batch_size of at least 1"),
    (("crop_size: 9", "crop_size: 13"), r"layer 'd' \(Data\): .*crop_size 13 is larger than the image"),
    (("scale: 0.5", "mean_value: 3"), r"layer 'd' \(Data\): .*mean_file and mean_value"),
    (("scale: 0.5", "noise_param { prob: 1 }"), r"layer 'd' \(Data\): .*not supported here: noise_param"),
])  # fmt: skip
def test_errors_name_the_layer(sets: Path, change: tuple[str, str], words: str) -> None:
    layer = parse_net(text(sets, "lmdb, cropped").replace(*change)).layers[0]
    with pytest.raises(PrototxtGenError, match=words):
        batches_of(layer, "TRAIN", 1).make(0)


@pytest.mark.caffe
@pytest.mark.parametrize("which", ["lmdb", "lmdb, cropped", "list", "hdf5"])
def test_caffe_gives_the_same_batches_where_nothing_is_random(tmp_path: Path, sets: Path, which: str) -> None:
    caffe = caffe_or_skip()
    prototxt = text(sets, which).replace("mirror: true", "mirror: false")
    (tmp_path / "net.prototxt").write_text(prototxt)
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    source = batches_of(parse_net(prototxt).layers[0], "TEST", 1)
    for number in range(6):
        net.forward()
        data, label = source.make(number)
        np.testing.assert_array_equal(net.blobs["data"].data, data)
        np.testing.assert_array_equal(net.blobs["label"].data, label)


@pytest.mark.parametrize("which", ["lmdb, cropped", "list, shuffled"])
def test_phase_of_a_data_layer_overrules_that_of_the_net(sets: Path, which: str) -> None:
    """With `phase: TEST` a train net crops the centre. Source: src/caffe/net.cpp Net::Init."""
    plain = text(sets, which).replace("mirror: true", "")
    own = {phase: parse_net(plain.replace("name:", f"phase: {phase} name:")).layers[0] for phase in ("TRAIN", "TEST")}
    by_net = {phase: batches_of(parse_net(plain).layers[0], phase, 1) for phase in own}
    assert not equal(by_net["TRAIN"].make(0), by_net["TEST"].make(0))
    for net_phase in own:
        for phase, layer in own.items():
            assert equal(batches_of(layer, net_phase, 1).make(0), by_net[phase].make(0))


@pytest.mark.caffe
@pytest.mark.parametrize(("net_phase", "phase"), [("TRAIN", "TEST"), ("TEST", "TEST")])
def test_caffe_obeys_the_phase_of_a_data_layer(tmp_path: Path, sets: Path, net_phase: str, phase: str) -> None:
    caffe = caffe_or_skip()
    prototxt = text(sets, "lmdb, cropped").replace("mirror: true", "").replace("name:", f"phase: {phase} name:")
    (tmp_path / "net.prototxt").write_text(prototxt)
    net = caffe.Net(str(tmp_path / "net.prototxt"), getattr(caffe, net_phase))
    net.forward()
    data, _ = batches_of(parse_net(prototxt).layers[0], net_phase, 1).make(0)
    np.testing.assert_array_equal(net.blobs["data"].data, data)
