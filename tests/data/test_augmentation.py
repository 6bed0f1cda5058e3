"""Caffe's transformation against its formula; geometry, colours and reproducibility of the augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from prototxt_gen.data import augmentation as augment_module
from prototxt_gen.data.augmentation import Augment, augment, sample_rng
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.transform import Transform, transform
from tests.support import data_samples as samples

Array = npt.NDArray[Any]
IMAGE = samples.picture(7, 11, 9).transpose(2, 0, 1)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_scale_and_mean_in_caffes_order() -> None:
    out = transform(IMAGE, Transform(scale=0.5, mean_value=(10, 20, 30)), "TRAIN")
    np.testing.assert_array_equal(out, (IMAGE.astype(np.float32) - [[[10]], [[20]], [[30]]]) * 0.5)
    np.testing.assert_array_equal(transform(IMAGE, Transform(mean_value=(10,)), "TEST"), IMAGE.astype(np.float32) - 10)


def test_crops_are_central_in_test_and_random_in_train() -> None:
    params = Transform(crop_size=8)
    np.testing.assert_array_equal(transform(IMAGE, params, "TEST"), IMAGE[:, 1:9, 0:8])
    rng, seen = _rng(), set()
    windows = {IMAGE[:, t : t + 8, x : x + 8].tobytes(): (t, x) for t in range(4) for x in range(2)}
    for _ in range(200):
        seen.add(windows[transform(IMAGE, params, "TRAIN", rng).astype(np.uint8).tobytes()])
    assert len(seen) == 8


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_mirroring_is_random_in_both_phases(phase: str) -> None:
    rng, mirrored = _rng(), 0
    for _ in range(400):
        out = transform(IMAGE, Transform(mirror=True), phase, rng)
        turned = bool((out == IMAGE[:, :, ::-1]).all())
        assert turned or (out == IMAGE).all()
        mirrored += turned
    assert 150 < mirrored < 250


def test_mean_file_is_cropped_with_the_image(tmp_path: Any) -> None:
    from prototxt_gen.caffemodel import write_binaryproto

    mean = _rng().normal(100, 20, (1, *IMAGE.shape)).astype(np.float32)
    write_binaryproto(tmp_path / "m.binaryproto", mean)
    params = Transform(mean_file=str(tmp_path / "m.binaryproto"), crop_size=5, scale=2.0)
    np.testing.assert_array_equal(transform(IMAGE, params, "TEST"), ((IMAGE - mean[0]) * 2)[:, 3:8, 2:7])
    with pytest.raises(DataError, match=r"is 3x11x9, the image 3x10x9"):
        transform(IMAGE[:, 1:], params, "TEST")


@pytest.mark.parametrize(("fields", "message"), [
    ({"mean_file": "m", "mean_value": (1,)}, "exclude each other"),
    ({"force_color": True, "force_gray": True}, "cannot both be set"),
    ({"crop_size": 10}, "crop_size 10 is larger than the image, 11x9"),
    ({"mean_value": (1, 2)}, "2 mean_values for 3 channels"),
    ({"mirror": True}, "needs a random generator"),
])  # fmt: skip
def test_what_caffe_refuses_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        transform(IMAGE, Transform(**fields), "TRAIN")


def test_equal_seeds_give_equal_images_and_others_differ() -> None:
    picture = samples.picture(3, 300, 400).transpose(2, 0, 1)
    how = Augment(brightness=0.4, contrast=0.4, saturation=0.4)
    one, same, other = (augment(picture, how, "TRAIN", sample_rng(*key)) for key in ((1, 2, 3), (1, 2, 3), (1, 2, 4)))
    np.testing.assert_array_equal(one, same)
    assert one.shape == (3, 224, 224)
    assert np.abs(one - other).mean() > 1
    test = [augment(picture, how, "TEST", sample_rng(0, 0, n)) for n in (0, 1)]
    np.testing.assert_array_equal(test[0], test[1])


def test_scale_draws_the_shorter_side_from_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = _boxes(monkeypatch, Augment(aspect=(1, 1), lighting=0), (3, 300, 400), 300)
    sides = np.array([height for _, _, height, _ in boxes])
    assert all(height == width for _, _, height, width in boxes)
    assert (sides.min(), sides.max()) == (140, 262)  # 224 * 300 / 480 and 224 * 300 / 256
    assert {top for top, *_ in boxes} >= {0, 100}
    assert min(left for _, left, *_ in boxes) == 0
    assert all(top + height <= 300 and left + width <= 400 for top, left, height, width in boxes)


def test_aspect_is_drawn_uniformly_on_a_log_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = _boxes(monkeypatch, Augment(shorter=(400, 400)), (3, 400, 400), 400)
    ratios = np.log([width / height for _, _, height, width in boxes])
    assert abs(ratios.mean()) < 0.03
    assert np.allclose([ratios.min(), ratios.max()], np.log([3 / 4, 4 / 3]), atol=0.02)
    areas = np.array([height * width for _, _, height, width in boxes])
    assert np.allclose(areas, 224**2, rtol=0.01)


def test_area_draws_the_share_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = _boxes(monkeypatch, Augment(shorter=None, area=(0.08, 1.0)), (3, 300, 400), 400)
    shares = np.array([height * width for _, _, height, width in boxes]) / (300 * 400)
    assert 0.075 < shares.min() < 0.12
    assert shares.max() > 0.9
    assert all(top + height <= 300 and left + width <= 400 for top, left, height, width in boxes)


def _boxes(monkeypatch: pytest.MonkeyPatch, how: Augment, shape: tuple[int, ...], count: int) -> list[Any]:
    """Return the boxes that are cut out in `count` random augmentations."""
    boxes: list[Any] = []
    cut = augment_module._cut_and_resize

    def watched(image: Array, box: Any, side: int) -> Array:
        boxes.append(box)
        return cut(image, box, side)

    monkeypatch.setattr(augment_module, "_cut_and_resize", watched)
    image = np.zeros(shape, np.uint8)
    for index in range(count):
        augment(image, how, "TRAIN", sample_rng(0, 0, index))
    return boxes


def test_test_images_are_the_centre_of_the_resized_image() -> None:
    ramp = np.tile(np.arange(512, dtype=np.float32) / 2, (1, 384, 1))
    out = augment(ramp, Augment.from_mapping({"shorter": [256, 480], "crop": 224, "mirror": False}), "TEST", _rng())
    # shorter side 384 -> 256 leaves 512 -> 341.3; the middle 224 of that are 336 of the 512 columns, from 88 on
    expected = (88 + (np.arange(224) + 0.5) * 1.5 - 0.5) / 2
    np.testing.assert_allclose(out[0, 100], expected, atol=0.01)


def test_cifar_pads_with_the_mean_and_shifts() -> None:
    image = np.full((3, 32, 32), 50, np.uint8)
    how = Augment.from_mapping({"preset": "cifar", "mean": [10, 20, 30], "scale": [0.5]})
    shifts = set()
    for index in range(300):
        out = augment(image, how, "TRAIN", sample_rng(0, 0, index))
        inside = out[0] != 0
        assert set(np.unique(out[1])) <= {0.0, 15.0}
        shifts.add((int(inside.any(1).argmax()), int(inside.any(1)[::-1].argmax())))
    assert {0, 4} <= {top for top, _ in shifts} <= {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(augment(image, how, "TEST", _rng())[2], np.full((32, 32), 10))
    assert augment(image[:, :28, :28], how, "TEST", _rng()).shape == (3, 32, 32)


def test_half_of_the_images_are_mirrored() -> None:
    how = Augment(crop=0, shorter=None, lighting=0)
    turned = [bool((augment(IMAGE, how, "TRAIN", sample_rng(0, 1, n)) == IMAGE[:, :, ::-1]).all()) for n in range(400)]
    assert 150 < sum(turned) < 250


def test_lighting_shifts_whole_channels_along_the_principal_colours() -> None:
    how = Augment.from_mapping({"lighting": 0.1})
    shifts = np.array([(augment(IMAGE, how, "TRAIN", sample_rng(0, 0, n)) - IMAGE)[:, 0, 0] for n in range(3000)])
    out = augment(IMAGE, how, "TRAIN", sample_rng(0, 0, 5)) - IMAGE
    np.testing.assert_allclose(out, np.broadcast_to(out[:, :1, :1], out.shape), atol=1e-4)
    rgb = shifts[:, ::-1] / 255
    vectors, values = augment_module._PCA_VECTORS, augment_module._PCA_VALUES
    np.testing.assert_allclose(np.cov(rgb.T), vectors @ np.diag((values * 0.1) ** 2) @ vectors.T, atol=4e-5)
    turned = (
        augment(IMAGE, Augment.from_mapping({"lighting": 0.1, "order": "rgb"}), "TRAIN", sample_rng(0, 0, 5)) - IMAGE
    )
    np.testing.assert_allclose(turned, out[::-1], atol=1e-4)


def test_brightness_contrast_and_saturation_do_what_they_say() -> None:
    image = _rng(3).integers(0, 256, (3, 11, 9), dtype=np.uint8)
    base = image.astype(np.float32)
    luma = np.tensordot([0.114, 0.587, 0.299], base, 1)
    for name, toward in (("brightness", 0.0), ("contrast", luma.mean()), ("saturation", luma)):
        out = augment(image, Augment.from_mapping({name: 0.4}), "TRAIN", sample_rng(0, 0, 1))
        factors = (out - toward)[np.abs(base - toward) > 20] / (base - toward)[np.abs(base - toward) > 20]
        assert np.ptp(factors) < 1e-4
        assert 0.6 <= factors[0] <= 1.4
        assert abs(factors[0] - 1) > 0.01


@pytest.mark.parametrize(("fields", "message"), [
    ({"crop": 0}, "need a crop"),
    ({"area": (0.1, 1)}, "give only one of them"),
    ({"pad": 4}, "not resized"),
    ({"aspect": (2, 1)}, "aspect is a range"),
    ({"order": "hsv"}, "order is 'bgr' or 'rgb'"),
    ({"test_shorter": 100}, "test_shorter is smaller"),
])  # fmt: skip
def test_contradictory_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Augment(**fields)


def test_mappings_are_checked_by_name() -> None:
    assert Augment.from_mapping({"preset": "imagenet", "shorter": [300, 320]}).shorter == (300, 320)
    with pytest.raises(DataError, match="no field 'morror'; did you mean 'mirror'"):
        Augment.from_mapping({"morror": True})
    with pytest.raises(DataError, match="did you mean 'cifar'"):
        Augment.from_mapping({"preset": "cifer"})
    with pytest.raises(DataError, match="crop 32 is larger than the image, 11x9 with pad 4"):
        augment(IMAGE, Augment.cifar(), "TRAIN", _rng())
    with pytest.raises(DataError, match="need 3 channels, the image has 1"):
        augment(IMAGE[:1], Augment.from_mapping({"saturation": 0.1}), "TRAIN", _rng())
    with pytest.raises(DataError, match="2 numbers in mean for 3 channels"):
        augment(IMAGE, Augment.from_mapping({"mean": [1, 2]}), "TRAIN", _rng())
