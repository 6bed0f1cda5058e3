"""`classify`: classes of image files, and attention masks drawn as HTML, PNG and folder."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import NetError, PrototxtGenError
from prototxt_gen.evaluate.attention_maps import (
    Mask,
    MaskedImage,
    enlarged_colour,
    find_mask_values,
    mask_tiles,
    masks_of_image,
    overlay,
    write_masks,
)
from prototxt_gen.models import build
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.runtime.torch_net import TorchNet
from tests.support.data_samples import picture, write_picture
from tests.support.evaluation_support import call, call_json, random_weights, tiny

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with deploy.prototxt, net.caffemodel, labels.txt and two pictures."""
    folder = tmp_path_factory.mktemp("net")
    tiny(folder)
    for number in range(2):
        write_picture(folder / f"p{number}.png", picture(number + 1, 12, 12))
    (folder / "labels.txt").write_text("".join(f"kind {label}\n" for label in range(7)))
    return folder


def _image(path: Path) -> Array:
    found = cv2.imread(str(path))
    assert found is not None
    return np.asarray(found)


def _blobs(folder: Path, name: str) -> dict[str, Array]:
    """Return what the net makes of a picture, by the simplest means."""
    net = parse_net((folder / "deploy.prototxt").read_text())
    fed = _image(folder / name).astype("float32").transpose(2, 0, 1)[None] * np.float32(0.02)
    with torch.no_grad():
        made = TorchNet(analyse(net), random_weights(analyse(net))).run({"data": torch.from_numpy(fed)})
    return {value.blob: blob.numpy() for value, blob in made.items()}


def _classify(folder: Path, *more: object) -> tuple[object, ...]:
    files = (folder / "deploy.prototxt", folder / "net.caffemodel", folder / "p0.png", folder / "p1.png")
    return ("classify", *files, "--scale", "0.02", *more)


def test_probabilities_are_those_of_the_net_in_descending_order(place: Path) -> None:
    found = call_json(*_classify(place, "--labels", place / "labels.txt", "--count", 3))
    for one, name in zip(found, ("p0.png", "p1.png"), strict=True):
        scores = _blobs(place, name)["prob"][0]
        order = np.argsort(-scores)[:3]
        assert [each["label"] for each in one["classes"]] == order.tolist()
        assert [each["name"] for each in one["classes"]] == [f"kind {label}" for label in order]
        np.testing.assert_allclose([each["probability"] for each in one["classes"]], scores[order], rtol=1e-4)


def test_onnx_gives_the_same_classes(place: Path) -> None:
    torch_, onnx = (call_json(*_classify(place, "--backend", name)) for name in ("torch", "onnx"))
    for one, other in zip(torch_, onnx, strict=True):
        probabilities = [[each["probability"] for each in seen["classes"]] for seen in (one, other)]
        np.testing.assert_allclose(probabilities[0], probabilities[1], rtol=1e-4)


def test_output_has_a_line_for_each_class(place: Path) -> None:
    lines = call(*_classify(place, "--count", 2)).stdout.splitlines()
    assert [line.strip() for line in lines if "%" not in line] == [str(place / "p0.png"), str(place / "p1.png")]
    assert len(lines) == 6


def test_the_html_page_of_masks_is_self_contained(place: Path, tmp_path: Path) -> None:
    page = tmp_path / "masks.html"
    assert call(*_classify(place, "--masks", page, "--labels", place / "labels.txt")).exit_code == 0
    text = page.read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == 2 * (1 + 1 + 3)
    assert all(cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), 1) is not None for one in pictures)
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert "branch" in text
    assert "6x5x5" in text
    assert "p0.png" in text


def test_masks_as_png_and_as_folder(place: Path, tmp_path: Path) -> None:
    assert call(*_classify(place, "--masks", tmp_path / "sheet.png")).exit_code == 0
    assert _image(tmp_path / "sheet.png").shape[0] > 400
    assert call(*_classify(place, "--masks", tmp_path / "folder")).exit_code == 0
    names = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert names == ["p0.png", "p0_branch.png", "p1.png", "p1_branch.png"]
    side = _image(tmp_path / "folder" / "p0.png").shape[0]
    assert _image(tmp_path / "folder" / "p0_branch.png").shape == (side, 5 * side, 3)


def test_existing_drawings_stay_unless_forced(place: Path, tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_text("mine")
    done = call(*_classify(place, "--masks", tmp_path / "sheet.png"))
    assert done.exit_code == 1
    assert "already exists" in done.output
    assert (tmp_path / "sheet.png").read_text() == "mine"
    assert call(*_classify(place, "--masks", tmp_path / "sheet.png", "--force")).exit_code == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--masks", "x.jpg"), "must end in .html or .png"),
        (("--masks", "x.html", "--mask-blobs", "branch/mas"), "did you mean 'branch/mask'"),
        (("--masks", "x.html", "--mask-blobs", "prob"), "a mask must be N×C×h×w"),
        (("--labels", "none.txt"), "none.txt: No such file"),
        (("--top", "nothing"), "no output 'nothing'"),
    ],
)
def test_errors_are_one_sentence(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*_classify(place, *more))
    assert done.exit_code == 1
    assert done.output.startswith("error: ")
    assert words in done.output


def test_a_file_that_is_not_an_image_is_named(place: Path) -> None:
    done = call("classify", place / "deploy.prototxt", place / "net.caffemodel", place / "labels.txt")
    assert done.exit_code == 1
    assert "labels.txt: not a picture" in done.output


def test_masks_are_the_blobs_of_the_net(place: Path) -> None:
    blobs = _blobs(place, "p0.png")
    found = call_json(*_classify(place, "--masks", place / "again.html", "--force"))[0]["masks"]
    assert [one["blob"] for one in found] == ["branch/mask"]
    assert found[0]["mean"] == pytest.approx(float(blobs["branch/mask"].mean()), rel=1e-4)


def test_masks_of_the_zoo_are_found_in_order() -> None:
    names = [value.blob for value in find_mask_values(build("attention-92-cifar"))]
    assert names == [f"Attention{stage}_{index}/mask" for stage in "ABC" for index in (1, 2)]
    with pytest.raises(NetError, match="no blob name matches"):
        find_mask_values(build("resnet-50"))


def test_an_overlay_is_brightest_where_the_mask_is_largest() -> None:
    field = np.zeros((4, 4))
    field[0, 0] = 3
    drawn = overlay(np.full((40, 40, 3), 90, np.uint8), field).astype(int).sum(axis=2)
    assert drawn[2, 2] > 2 * drawn[30, 30]
    flat = overlay(np.full((8, 8, 3), 90, np.uint8), np.ones((4, 4)))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1  # nothing to tell apart, and no division by zero


def test_most_varying_channels() -> None:
    values = np.zeros((4, 2, 2), "float32")
    values[2, 0], values[0, 1, 1] = 1, 0.1
    mask = masks_of_image({"m/mask": values[None]})[0]
    assert (mask.module, mask.most_varying_channels(2)) == ("m", [2, 0])
    assert [tile.title for tile in mask_tiles(np.zeros((5, 5, 1), np.uint8), mask, 1)] == [
        "mean of 4, 0.00 to 0.25",
        "channel 2, 0.00 to 1.00",
    ]


def test_small_images_are_enlarged_by_a_whole_factor() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(4, 3, 1)
    large = enlarged_colour(image, 9)
    np.testing.assert_array_equal(large, np.repeat(np.repeat(np.repeat(image, 2, 0), 2, 1), 3, 2))
    assert enlarged_colour(np.zeros((300, 200, 3), np.uint8)).shape == (300, 200, 3)


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    mask = Mask("<b>/mask", np.random.default_rng(0).uniform(size=(2, 3, 3)).astype("float32"))
    seen = MaskedImage("<script>x</script>", "50 % \x1b[31m", np.zeros((6, 6, 1), np.uint8), [mask])
    (page,) = write_masks(tmp_path / "a.html", [seen])
    assert "<script" not in page.read_text()
    assert "\x1b" not in page.read_text()
    with pytest.raises(PrototxtGenError, match="already exists"):
        write_masks(page, [seen])
