"""Random access to every kind of data set, across processes; info and mean."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import pytest

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.data_set_reader import Dataset, Hdf5Dataset, open_dataset
from prototxt_gen.data.info import info, mean
from prototxt_gen.data.make import make
from tests.support import data_samples as samples


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Path]:
    """Return the same data set in every format: 40 images, 3 x 6 x 5."""
    samples.write_npz(tmp_path / "a.npz")
    return {
        "npz": tmp_path / "a.npz",
        "lmdb": make(tmp_path / "a.npz", tmp_path / "raw").source,
        "encoded": make(tmp_path / "a.npz", tmp_path / "png", encoded="png").source,
        "hdf5": make(tmp_path / "a.npz", tmp_path / "h5", "hdf5", file_bytes=360 * 7).source,
    }


def _same(dataset: Dataset, x: Any, y: Any) -> None:
    order = [*range(len(x)), 39, 3, 4, 5, 20, -1, 0]  # in a row, then here and there
    for index in order:
        image, label = dataset[index]
        np.testing.assert_array_equal(image, x[index].transpose(2, 0, 1))
        assert label == y[index]


def test_every_format_gives_the_same_samples(sets: dict[str, Path], tmp_path: Path) -> None:
    with np.load(tmp_path / "a.npz") as stored:
        x, y = stored["x"], stored["y"]
    for form, path in sets.items():
        dataset = open_dataset(path)
        assert len(dataset) == 40
        _same(dataset, x, y)
        _same(pickle.loads(pickle.dumps(dataset)), x, y)
        assert dataset[0][0].dtype == (np.float32 if form == "hdf5" else np.uint8)
        with pytest.raises(IndexError):
            dataset[40]


def _sum(dataset: Dataset) -> int:
    return int(sum(image.sum() + label for image, label in dataset))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_open_data_sets_work_in_other_processes(sets: dict[str, Path], method: str) -> None:
    datasets = [open_dataset(path) for path in sets.values()] + [open_dataset(sets["lmdb"])]
    expected = [_sum(dataset) for dataset in datasets]  # opens every file here first
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_sum, datasets) == expected


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_child_opens_its_own_files(sets: dict[str, Path]) -> None:
    dataset, other = open_dataset(sets["lmdb"]), open_dataset(sets["lmdb"])
    expected = (_sum(dataset), _sum(other))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, pickle.dumps((_sum(dataset), _sum(other))))
        os._exit(0)
    os.waitpid(child, 0)
    assert pickle.loads(os.read(reading, 1000)) == expected
    assert _sum(dataset) == expected[0]


def test_force_color_and_force_gray_apply_to_encoded_datums(tmp_path: Path) -> None:
    samples.write_picture(tmp_path / "src" / "a" / "g.png", samples.picture(3)[..., :1])
    path = make(tmp_path / "src", tmp_path / "out", encoded="png", gray=True).path
    shapes = [open_dataset(path, color=color)[0][0].shape for color in (None, True, False)]
    assert shapes == [(1, 12, 16), (3, 12, 16), (1, 12, 16)]


def test_image_lists_are_read_as_imagedata_does(tmp_path: Path) -> None:
    samples.class_folders(tmp_path / "p")
    listing = tmp_path / "list.txt"
    listing.write_text("dog/a 1.png 8\ncat/a 0.png 7\n")
    dataset = open_dataset(listing, root=f"{tmp_path}/p/", size=(12, 8))
    assert [(image.shape, label) for image, label in dataset] == [((3, 12, 8), 8), ((3, 12, 8), 7)]
    gray = open_dataset(listing, "list", root=f"{tmp_path}/p/", color=False)
    assert gray[0][0].shape == (1, 12, 16)


def test_hdf5_with_other_tops(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"], file["points"] = np.zeros((4, 1, 2, 2)), np.arange(40).reshape(4, 10)
    dataset = open_dataset(tmp_path / "a.h5", tops=("image", "points"))
    assert isinstance(dataset, Hdf5Dataset)
    np.testing.assert_array_equal(dataset.row(2)[1], np.arange(20, 30))
    with pytest.raises(DataError, match="one label per row"):
        dataset[0]
    with pytest.raises(DataError, match="no data set data, label; it has image, points"):
        open_dataset(tmp_path / "a.h5")


def test_moved_hdf5_set_is_found_and_a_missing_file_is_named(sets: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "h5").rename(tmp_path / "moved")
    assert len(open_dataset(tmp_path / "moved" / "list.txt")) == 40
    (tmp_path / "moved" / "part_00002.h5").unlink()
    with pytest.raises(DataError, match=r"do not exist.*part_00002.h5"):
        open_dataset(tmp_path / "moved" / "list.txt")
    (tmp_path / "moved" / "part_00002.h5").write_bytes(b"no")
    with pytest.raises(DataError, match=r"cannot read .*part_00002.h5 as HDF5"):
        open_dataset(tmp_path / "moved" / "list.txt")


def test_errors_of_damaged_lmdbs_are_one_sentence(sets: dict[str, Path], tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "bad")) as env, env.begin(write=True) as txn:
        txn.put(b"00000000_x", b"\x22\x7fabc")
    with pytest.raises(DataError, match=r"bad, key 00000000_x: .*damaged"):
        open_dataset(tmp_path / "bad")[0]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match=r"cannot open .* as LMDB"):
        open_dataset(tmp_path / "other")
    whole = (sets["encoded"] / "data.mdb").read_bytes()
    (tmp_path / "other" / "data.mdb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut short: its data.mdb has \d+ bytes of \d+"):
        open_dataset(tmp_path / "other")
    with pytest.raises(DataError, match="is not an LMDB"):
        open_dataset(tmp_path, "lmdb")
    (tmp_path / "level").mkdir()
    (tmp_path / "level" / "CURRENT").touch()
    (tmp_path / "level" / "MANIFEST-000002").touch()
    with pytest.raises(DataError, match="is a LevelDB"):
        open_dataset(tmp_path / "level")


def test_info_counts(sets: dict[str, Path]) -> None:
    labels = {0: 6, 1: 6, 2: 6, 3: 6, 4: 6, 5: 5, 6: 5}
    for form, path in sets.items():
        found = info(path)
        assert (found.count, found.shapes, found.labels) == (40, {"3x6x5": 40}, labels)
        assert found.encoded == (40 if form == "encoded" else 0)
        assert found.dtype == ("float32" if form == "hdf5" else "uint8")
        assert found.bytes > 40 * 90


def test_info_of_images_and_their_classes(tmp_path: Path) -> None:
    src = samples.class_folders(tmp_path / "src")
    samples.write_picture(src / "dog" / "tall.jpg", samples.picture(1, 20, 10))
    for path in (src, make(src, tmp_path / "out", encoded="png").path):
        found = info(path)
        assert (found.shapes, found.classes) == ({"3x12x16": 6, "3x20x10": 1}, ("cat", "dog"))
        assert found.encoded == 7
    assert info(src).bytes == sum(file.stat().st_size for file in src.rglob("*.*"))


def test_mean_of_every_format(sets: dict[str, Path], tmp_path: Path) -> None:
    from prototxt_gen.caffemodel import read_binaryproto

    with np.load(tmp_path / "a.npz") as stored:
        expected = stored["x"].transpose(0, 3, 1, 2).mean(0)
    seen: list[tuple[int, int]] = []
    for form, path in sets.items():
        out = tmp_path / f"{form}.binaryproto"
        found = mean(path, out, progress=lambda done, total: seen.append((done, total)))
        assert found.pixels is not None
        np.testing.assert_allclose(found.pixels, expected, rtol=1e-6)
        np.testing.assert_allclose(found.channels, expected.mean((1, 2)), rtol=1e-6)
        np.testing.assert_array_equal(read_binaryproto(out), found.pixels[None])
        with pytest.raises(PrototxtGenError, match="already exists"):
            mean(path, out)
        mean(path, out, force=True)
    assert seen[-1] == (40, 40)


def test_mean_where_shapes_differ(tmp_path: Path) -> None:
    src = samples.class_folders(tmp_path / "src", ("a",), 1)
    samples.write_picture(src / "a" / "tall.png", np.full((30, 10, 3), 100, np.uint8))
    found = mean(src)
    total = samples.picture(0).astype(float).sum((0, 1)) + 100 * 300
    np.testing.assert_allclose(found.channels, total / (12 * 16 + 300))
    assert found.pixels is None
    with pytest.raises(DataError, match="differ in size"):
        mean(src, tmp_path / "m.binaryproto")
    assert not (tmp_path / "m.binaryproto").exists()
