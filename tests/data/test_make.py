"""`make`: the written data sets, interrupted runs, damaged files, and refused arguments."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import pytest

from prototxt_gen.data import datum, images
from prototxt_gen.data import make as make_module
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.data_set_reader import open_dataset
from prototxt_gen.data.data_set_writers import LmdbWriter
from prototxt_gen.data.make import MakeResult, make
from tests.support import data_samples as samples

ROOT = Path(__file__).resolve().parents[2]


def _pairs(folder: Path) -> list[tuple[bytes, datum.Datum]]:
    with lmdb.open(str(folder), readonly=True, lock=False) as env, env.begin() as txn:
        return [(bytes(key), datum.decode(bytes(value))) for key, value in txn.cursor()]


def test_an_lmdb_has_the_keys_and_datums_of_convert_imageset(tmp_path: Path) -> None:
    made = make(samples.class_folders(tmp_path / "src"), tmp_path / "out")
    pairs = _pairs(tmp_path / "out")
    assert [key for key, _ in pairs][::5] == [b"00000000_cat/a 0.png", b"00000005_dog/a 2.png"]
    assert [d.label for _, d in pairs] == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(pairs[4][1].array(), samples.picture(11).transpose(2, 0, 1))
    assert (made.count, made.shapes, made.classes, made.mixed) == (6, {"3x12x16": 6}, ("cat", "dog"), False)
    assert (tmp_path / "out" / "labels.txt").read_text() == "cat\ndog\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "src"]  # nothing half-made is left


def test_encoded_keeps_suitable_image_files_unchanged(tmp_path: Path) -> None:
    src = samples.class_folders(tmp_path / "src")
    file = src / "cat" / "a 0.png"
    made = make(src, tmp_path / "png", encoded="png")
    assert _pairs(made.path)[0][1] == datum.Datum(data=file.read_bytes(), label=0, encoded=True)
    small = _pairs(make(src, tmp_path / "small", encoded="png", resize=(5, 7)).path)[0][1]
    np.testing.assert_array_equal(small.array(), images.to_chw(images.resize(samples.picture(0), (5, 7))))
    jpg = _pairs(make(src, tmp_path / "jpg", encoded="jpg").path)[0][1]
    assert jpg.data.startswith(b"\xff\xd8")
    assert np.abs(jpg.array().astype(int) - samples.picture(0).transpose(2, 0, 1)).mean() < 12


def test_encoded_grey_files_get_the_requested_channels(tmp_path: Path) -> None:
    samples.write_picture(tmp_path / "src" / "a" / "x.png", samples.picture(1)[..., :1])
    assert _pairs(make(tmp_path / "src", tmp_path / "color", encoded="png").path)[0][1].array().shape == (3, 12, 16)
    assert _pairs(make(tmp_path / "src", tmp_path / "g", encoded="png", gray=True).path)[0][1].array().shape[0] == 1


def test_hdf5_files_hold_the_same_samples_below_the_limit(tmp_path: Path) -> None:
    x, y = samples.write_npz(tmp_path / "a.npz")
    made = make(tmp_path / "a.npz", tmp_path / "out", "hdf5", file_bytes=12 * 4 * 90)
    files = [Path(line) for line in made.source.read_text().split()]
    assert len(files) == 4
    assert all(file.is_absolute() and file.parent == tmp_path / "out" for file in files)
    with h5py.File(files[1]) as second:
        assert (second["data"].shape, second["data"].dtype) == ((12, 3, 6, 5), np.float32)
        np.testing.assert_array_equal(second["data"], x[12:24].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(second["label"], y[12:24])


def test_floats_go_into_float_data(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 3))
    np.savez(tmp_path / "a.npz", x=x, y=[0, 1, 2])
    found = _pairs(make(tmp_path / "a.npz", tmp_path / "out").path)[2][1]
    assert found.data == b""
    np.testing.assert_array_equal(found.array(), x[2].transpose(2, 0, 1).astype(np.float32))


def test_channel_order_and_grey(tmp_path: Path) -> None:
    planes, _ = samples.write_cifar10(tmp_path / "cifar")
    src = tmp_path / "cifar"
    kept = open_dataset(make(src, tmp_path / "kept", split="train").path)
    turned = open_dataset(make(src, tmp_path / "turned", split="train", bgr=True).path)
    gray = open_dataset(make(src, tmp_path / "gray", split="train", gray=True).path)
    np.testing.assert_array_equal(kept[3][0], planes[3])
    np.testing.assert_array_equal(turned[3][0], planes[3][::-1])
    weighted = np.tensordot([0.299, 0.587, 0.114], planes[3], 1)
    assert np.abs(gray[3][0][0] - weighted).max() < 1


def test_parts_divide_a_shuffled_set(tmp_path: Path) -> None:
    _, y = samples.write_npz(tmp_path / "a.npz")
    train, val, again = (
        [label for _, label in open_dataset(make(tmp_path / "a.npz", tmp_path / name, shuffle_seed=5, part=part).path)]
        for name, part in (("t", (0, 0.9)), ("v", (0.9, 1)), ("a", None))
    )
    assert (len(train), len(val)) == (36, 4)
    assert train + val == again
    assert sorted(again) == sorted(y)
    assert again != y.tolist()


@pytest.mark.parametrize("to", ["lmdb", "hdf5"])
def test_broken_images_are_all_named_and_can_be_repaired_or_skipped(tmp_path: Path, to: str) -> None:
    src = samples.class_folders(tmp_path / "src", each=20)
    whole = make(src, tmp_path / "whole", to, file_bytes=8 * 2304)
    bad = [src / "cat" / "a 9.png", src / "dog" / "a 3.png"]
    mended = [file.read_bytes() for file in bad]
    bad[0].write_bytes(mended[0][:-30])
    bad[1].write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 40 images are broken .*a 9.png: .*cut short.*dog/a 3.png"):
        make(src, tmp_path / "out", to, file_bytes=8 * 2304)
    made = make(src, tmp_path / "skipped", to, file_bytes=8 * 2304, skip_broken=True)
    assert (made.count, len(made.broken), len(open_dataset(made.source))) == (38, 2, 38)
    for file, data in zip(bad, mended, strict=True):
        file.write_bytes(data)
    again = make(src, tmp_path / "out", to, file_bytes=8 * 2304)
    assert (again.count, again.broken) == (40, ())
    assert again.resumed_at == (16 if to == "hdf5" else 0)
    assert _checksums(again) == _checksums(whole)


def test_skipping_after_the_error_continues_from_there(tmp_path: Path) -> None:
    src = samples.class_folders(tmp_path / "src")
    (src / "cat" / "a 0.png").write_bytes(b"no")
    with pytest.raises(DataError, match="1 of 6"):
        make(src, tmp_path / "out")
    made = make(src, tmp_path / "out", skip_broken=True)
    assert (made.resumed_at, made.count) == (6, 5)
    assert _pairs(made.path)[0][0] == b"00000001_cat/a 1.png"  # the numbers of the others stay, as in convert_imageset


def _checksums(made: MakeResult) -> Any:
    return json.loads((made.path / "dataset.json").read_text())["crc32"]


_KILLED = """
import os, sys, numpy as np
from prototxt_gen.data.make import make
from prototxt_gen.data import data_set_writers
data_set_writers.LmdbWriter.__init__.__defaults__ = (8,)
make(sys.argv[1], sys.argv[2], sys.argv[3], shuffle_seed=3, file_bytes=8 * 360, workers=1,
     progress=lambda done, total: os.kill(os.getpid(), 9) if done == int(sys.argv[4]) else None)
"""


@pytest.mark.parametrize("to", ["lmdb", "hdf5"])
@pytest.mark.parametrize("killed_at", [3, 21, 40])
def test_killed_run_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, killed_at: int
) -> None:
    monkeypatch.setattr(LmdbWriter.__init__, "__defaults__", (8,))
    samples.write_npz(tmp_path / "a.npz")
    arguments = [str(tmp_path / "a.npz"), str(tmp_path / "out"), to, str(killed_at)]
    killed = subprocess.run([sys.executable, "-c", _KILLED, *arguments], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert not (tmp_path / "out").exists()
    made, whole = (
        make(tmp_path / "a.npz", tmp_path / name, to, shuffle_seed=3, file_bytes=8 * 360) for name in ("out", "whole")
    )
    assert (made.resumed_at, whole.resumed_at) == ((killed_at - 1) // 8 * 8, 0)
    assert (made.count, _checksums(made)) == (40, _checksums(whole))
    ours, theirs = (open_dataset(m.source) for m in (made, whole))
    assert all(np.array_equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(ours, theirs, strict=True))


def test_run_with_other_arguments_starts_again(tmp_path: Path) -> None:
    samples.write_npz(tmp_path / "a.npz")

    def stop(done: int, total: int) -> None:
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "a.npz", tmp_path / "out", "hdf5", file_bytes=8 * 360, progress=stop)
    assert (tmp_path / ".out.partial").is_dir()
    made = make(tmp_path / "a.npz", tmp_path / "out", "hdf5", file_bytes=8 * 360, resize=(3, 3))
    assert (made.resumed_at, made.shapes) == (0, {"3x3x3": 40})


def test_lmdb_map_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prototxt_gen.data.data_set_writers.LMDB_FIRST_MAP", 1 << 16)
    x, _ = samples.write_npz(tmp_path / "a.npz", 300, 40, 40)
    made = make(tmp_path / "a.npz", tmp_path / "out")
    np.testing.assert_array_equal(open_dataset(made.path)[299][0], x[299].transpose(2, 0, 1))


def test_long_names_fit_lmdbs_keys(tmp_path: Path) -> None:
    samples.write_picture(tmp_path / "src" / ("c" * 200) / ("d" * 200) / f"{'e' * 200}.png", samples.picture(1))
    key, _ = _pairs(make(tmp_path / "src", tmp_path / "out").path)[0]
    assert len(key) == 511


def test_existing_set_is_replaced_only_by_force_and_by_a_complete_one(tmp_path: Path) -> None:
    samples.write_npz(tmp_path / "a.npz")
    src = samples.class_folders(tmp_path / "src")
    make(src, tmp_path / "out")
    with pytest.raises(DataError, match="there already"):
        make(tmp_path / "a.npz", tmp_path / "out")
    (src / "cat" / "a 0.png").write_bytes(b"no")
    with pytest.raises(DataError, match="broken"):
        make(src, tmp_path / "out", force=True)
    old = open_dataset(tmp_path / "out")
    assert len(old) == 6
    make(tmp_path / "a.npz", tmp_path / "out", force=True)
    assert (len(old), len(open_dataset(tmp_path / "out"))) == (6, 40)  # who has it open keeps what he had


@pytest.mark.parametrize("to", ["lmdb", "hdf5"])
def test_disk_error_is_found_on_reading_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    samples.write_npz(tmp_path / "a.npz")
    writer = getattr(make_module, "LmdbWriter" if to == "lmdb" else "Hdf5Writer")
    honest = writer.write

    def forgetful(self: Any, number: int, records: list[Any]) -> Any:
        honest(self, number, records[:-1])
        return 12345

    monkeypatch.setattr(writer, "write", forgetful)
    with pytest.raises(DataError, match="chunk 0, read back, differs"):
        make(tmp_path / "a.npz", tmp_path / "out", to)
    monkeypatch.setattr(writer, "write", honest)
    assert make(tmp_path / "a.npz", tmp_path / "out", to).count == 40


def test_disk_space_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples.write_npz(tmp_path / "a.npz", 3000, 32, 32)
    usage = shutil.disk_usage(tmp_path)._replace(free=5 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"needs about \d+ MB more, and the disk has 5 MB free"):
        make(tmp_path / "a.npz", tmp_path / "out")
    assert not (tmp_path / ".out.partial").exists()


_LIMITED = """
import resource, sys
from prototxt_gen.data.make import make
from prototxt_gen.data.data_errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 21, 1 << 21))
try:
    make(sys.argv[1], sys.argv[2], sys.argv[3], file_bytes=1 << 22)
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("to", ["lmdb", "hdf5"])
def test_full_disk_loses_no_finished_chunk(tmp_path: Path, to: str) -> None:
    x, _ = samples.write_npz(tmp_path / "a.npz", 1000, 32, 32)
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "a.npz"), str(tmp_path / "out"), to]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "run again to continue from here" in said.stdout, said
    made = make(tmp_path / "a.npz", tmp_path / "out", to)
    np.testing.assert_array_equal(open_dataset(made.source)[999][0], x[999].transpose(2, 0, 1))


def test_two_runs_cannot_write_the_same_set(tmp_path: Path) -> None:
    samples.write_npz(tmp_path / "a.npz")

    def second(done: int, total: int) -> None:
        with pytest.raises(DataError, match="another run is writing"):
            make(tmp_path / "a.npz", tmp_path / "out")

    assert make(tmp_path / "a.npz", tmp_path / "out", progress=second).count == 40


@pytest.mark.parametrize(("how", "message"), [
    ({"to": "leveldb"}, "to is 'lmdb' or 'hdf5'"),
    ({"encoded": "gif"}, "encoded is 'png' or 'jpg'"),
    ({"encoded": "png", "to": "hdf5"}, "encoded is for LMDB"),
    ({"resize": (0, 5)}, "size above 0"),
    ({"part": (0.5, 0.5)}, "not in 0..1"),
    ({"part": (0.99, 0.995)}, "of 40 samples is none"),
    ({"split": "val"}, "no part 'val'"),
])  # fmt: skip
def test_errors_of_invalid_arguments_are_one_sentence(tmp_path: Path, how: dict[str, Any], message: str) -> None:
    samples.write_npz(tmp_path / "a.npz")
    with pytest.raises(DataError, match=message):
        make(tmp_path / "a.npz", tmp_path / "out", **how)


def test_hdf5_needs_one_shape_and_a_path_without_spaces(tmp_path: Path) -> None:
    src = samples.class_folders(tmp_path / "src")
    samples.write_picture(src / "dog" / "wide.png", samples.picture(1, 12, 20))
    with pytest.raises(DataError, match=r"dog/wide.png is \(3, 12, 20\), the first \(3, 12, 16\)"):
        make(src, tmp_path / "out", "hdf5")
    with pytest.raises(DataError, match="splits its list at spaces"):
        make(src, tmp_path / "my data", "hdf5", resize=(8, 8))
    made = make(src, tmp_path / "out2")
    assert made.mixed
    assert made.shapes == {"3x12x16": 6, "3x12x20": 1}
