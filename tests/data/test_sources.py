"""Every kind of source: its samples, their order, and error messages for damaged ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from prototxt_gen.data import images
from prototxt_gen.data.binary_sources import read_idx
from prototxt_gen.data.data_errors import BrokenImageError, DataError
from prototxt_gen.data.safe_pickle import load_arrays
from prototxt_gen.data.source_detection import detect_kind, open_source
from tests.support import data_samples as samples


def test_folders_are_classes_in_order_of_name(tmp_path: Path) -> None:
    samples.class_folders(tmp_path, ("dog", "cat"))
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"")
    samples.write_picture(tmp_path / "cat" / "more" / "z.JPG", samples.picture(9))
    source = open_source(tmp_path)
    assert source.classes == ("cat", "dog")
    assert [(s.key, s.label) for s in source][:5] == [
        ("cat/a 0.png", 0), ("cat/a 1.png", 0), ("cat/a 2.png", 0), ("cat/more/z.JPG", 0), ("dog/a 0.png", 1),
    ]  # fmt: skip
    np.testing.assert_array_equal(source[0].image, samples.picture(10))  # BGR, as it was given to OpenCV


def test_numbered_classes_are_ordered_by_number(tmp_path: Path) -> None:
    samples.class_folders(tmp_path, ("10", "9", "2"), 1)
    assert open_source(tmp_path).classes == ("2", "9", "10")


def test_folders_with_several_splits_need_a_split(tmp_path: Path) -> None:
    samples.class_folders(tmp_path / "train")
    samples.class_folders(tmp_path / "val", each=1)
    with pytest.raises(DataError, match="several parts, train, val"):
        open_source(tmp_path)
    with pytest.raises(DataError, match=r"no part 'vla'.*did you mean 'val'"):
        open_source(tmp_path, split="vla")
    assert (len(open_source(tmp_path, split="train")), len(open_source(tmp_path, split="val"))) == (6, 2)


def test_list_lines_are_split_at_the_last_space(tmp_path: Path) -> None:
    for name in ("a b.png", "c.png"):
        samples.write_picture(tmp_path / "pics" / name, samples.picture(1))
    listing = tmp_path / "list.txt"
    listing.write_text("\ufeffa b.png 3\r\n\nc.png -1\n", encoding="utf-8")
    source = open_source(listing, root=f"{tmp_path}/pics/")
    assert [(s.key, s.label) for s in source] == [("a b.png", 3), ("c.png", -1)]
    listing.write_text("pics/c.png 5\n")
    assert open_source(listing)[0].label == 5  # found beside the list, not in the working folder
    listing.write_text("pics/c.png 5\nc.png five\n")
    with pytest.raises(DataError, match="line 2: expected PATH LABEL"):
        open_source(listing)


@pytest.mark.parametrize("planar", [False, True])
def test_npz_by_any_common_name_and_layout(tmp_path: Path, planar: bool) -> None:
    x = np.arange(2 * 3 * 4 * 5, dtype=np.int64).reshape(2, 4, 5, 3)
    stored = x.transpose(0, 3, 1, 2) if planar else x
    np.savez(tmp_path / "a.npz", x_train=stored, y_train=np.array([[4], [5]]), test_images=x[:1, ..., 0],
             test_labels=[1.0])  # fmt: skip
    train, test = (open_source(tmp_path / "a.npz", split=part) for part in ("train", "test"))
    assert train[1].image.dtype == np.uint8
    np.testing.assert_array_equal(train[1].image, x[1])
    assert [s.label for s in train] == [4, 5]
    np.testing.assert_array_equal(test[0].image, x[0, ..., :1])


@pytest.mark.parametrize(("arrays", "message"), [
    ({"x": np.zeros((2, 784)), "y": [0, 1]}, "shape .2, 784."),
    ({"x": np.zeros((2, 4, 4)), "y": [0, 1, 2]}, "one label for each of 2"),
    ({"x": np.zeros((2, 4, 4)), "y": [0.5, 1]}, "whole numbers"),
    ({"x": np.zeros((2, 5, 4, 7)), "y": [0, 1]}, "no axis looks like"),
    ({"pixels": np.zeros(3)}, "expected x and y"),
    ({"x": np.array([object()]), "y": [0]}, "cannot read .* as .npz"),
])  # fmt: skip
def test_bad_npz_is_refused_in_one_sentence(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path / "a.npz")


def test_cifar_binary(tmp_path: Path) -> None:
    planes, labels = samples.write_cifar10(tmp_path)
    source = open_source(tmp_path, split="train")
    assert (source.kind, len(source), source.classes[:2]) == ("cifar10", 8, ("plane", "car"))
    np.testing.assert_array_equal(source[5].image.transpose(2, 0, 1), planes[5])
    assert [s.label for s in source] == labels.tolist()
    assert len(open_source(tmp_path / "test_batch.bin")) == 4
    with (tmp_path / "test_batch.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="no whole number of records of 3073"):
        open_source(tmp_path, split="test")


def test_cifar100_has_coarse_and_fine_labels(tmp_path: Path) -> None:
    records = np.random.default_rng(0).integers(0, 20, (3, 3074), dtype=np.uint8)
    for name in ("train.bin", "test.bin"):
        records.tofile(tmp_path / name)
    fine = open_source(tmp_path, split="test")
    coarse = open_source(tmp_path, "cifar100-coarse", split="test")
    assert [s.label for s in fine] == records[:, 1].tolist()
    assert [s.label for s in coarse] == records[:, 0].tolist()
    np.testing.assert_array_equal(fine[2].image.transpose(2, 0, 1).ravel(), records[2, 2:])


def test_cifar_pickles_are_read_without_running_code(tmp_path: Path) -> None:
    planes, labels = samples.write_cifar10_python(tmp_path)
    source = open_source(tmp_path)
    np.testing.assert_array_equal(source[4].image.transpose(2, 0, 1), planes[4])
    assert [s.label for s in source] == labels.tolist()


class _Attack:
    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (Path("attacked"),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickle_that_calls_functions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": _Attack(), b"labels": [1]}, protocol))
    (tmp_path / "batches.meta").write_bytes(b"")
    with pytest.raises(DataError, match=r"wants to call \S+; only plain arrays"):
        open_source(tmp_path)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_arrays_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "p").write_bytes(pickle.dumps({"a": np.arange(6.0).reshape(2, 3), "s": np.int64(3)}, protocol))
    read = load_arrays(tmp_path / "p")
    assert isinstance(read, dict)
    np.testing.assert_array_equal(read["a"], np.arange(6.0).reshape(2, 3))
    assert read["s"] == 3


@pytest.mark.parametrize("zipped", [False, True])
def test_idx(tmp_path: Path, zipped: bool) -> None:
    pixels, labels = samples.write_idx(tmp_path, zipped)
    source = open_source(tmp_path)
    assert (source.kind, [s.label for s in source]) == ("idx", labels.tolist())
    np.testing.assert_array_equal(source[8].image[..., 0], pixels[8])


def test_damaged_idx_is_named(tmp_path: Path) -> None:
    samples.write_idx(tmp_path, False)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged: 314 bytes of values for shape"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="is not an IDX file"):
        read_idx(Path(__file__))


def test_kinds_are_detected(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    (tmp_path / "noise").write_bytes(b"a\0b")
    with pytest.raises(DataError, match="unpack it"):
        detect_kind(tmp_path / "a.tar.gz")
    with pytest.raises(DataError, match="not a list file"):
        detect_kind(tmp_path / "noise")
    with pytest.raises(DataError, match="does not exist"):
        detect_kind(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no images in class folders"):
        open_source(tmp_path)
    with pytest.raises(DataError, match="did you mean 'folder'"):
        open_source(tmp_path, "foldr")


def _jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


def test_truncated_images_are_broken_and_trailing_bytes_are_not() -> None:
    image = samples.picture(1, 40, 30)
    png, jpg = cv2.imencode(".png", image)[1].tobytes(), _jpeg(image)
    for whole in (png, jpg):
        assert images.decode(whole).shape == (40, 30, 3)
        assert images.decode(whole + b"\xff\xda film").shape == (40, 30, 3)
        assert images.shape_of_file(whole) == (3, 40, 30)
        for keep in (len(whole) - 20, len(whole) // 2, 10, 0):
            with pytest.raises(BrokenImageError):
                images.decode(whole[:keep])


def test_end_marker_of_a_thumbnail_does_not_hide_truncation() -> None:
    whole, thumbnail = _jpeg(samples.picture(1, 40, 30)), _jpeg(samples.picture(2, 8, 8))
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    with_thumbnail = whole[:2] + segment + whole[2:]
    assert images.shape_of_file(with_thumbnail) == (3, 40, 30)
    assert images.decode(with_thumbnail).shape == (40, 30, 3)
    with pytest.raises(BrokenImageError, match="cut short"):
        images.decode(with_thumbnail[:-30])


def test_shapes_of_grey_alpha_and_16_bit_images() -> None:
    gray = samples.picture(1)[..., 0]
    assert images.shape_of_file(_jpeg(gray)) == (1, 12, 16)
    assert images.shape_of_file(cv2.imencode(".png", gray)[1].tobytes()) == (1, 12, 16)
    assert images.shape_of_file(cv2.imencode(".png", np.dstack([samples.picture(1), gray]))[1].tobytes()) == (4, 12, 16)
    assert images.shape_of_file(cv2.imencode(".bmp", samples.picture(1))[1].tobytes()) == (3, 12, 16)
    with pytest.raises(BrokenImageError, match="8 bits per channel"):
        images.decode(cv2.imencode(".png", gray.astype(np.uint16) * 99)[1].tobytes(), None)
