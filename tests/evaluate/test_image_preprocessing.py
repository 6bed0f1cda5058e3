"""Preprocessing for evaluation: the same as that of the net's TEST data layer; ten crops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from converters.common.preprocessing import Preprocessing
from prototxt_gen.caffemodel import write_binaryproto
from prototxt_gen.common.errors import PrototxtGenError, WeightsError
from prototxt_gen.data.augmentation import Augment, augment, sample_rng
from prototxt_gen.data.batch_loader import BatchMaker, LoaderSpec
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.make import make
from prototxt_gen.data.transform import Transform, transform
from prototxt_gen.evaluate.eval_data import (
    EvalDataOptions,
    class_names,
    image_preprocessor,
    open_eval_dataset,
    stored_channel_order,
)
from prototxt_gen.evaluate.image_preprocessing import AugmentPreprocessor, CaffePreprocessor, window_positions
from prototxt_gen.evaluate.net_data_layer import net_data_layer
from prototxt_gen.evaluate.scores import EvalSamples
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.train.data_layer_batches import batches_of
from tests.support.data_samples import picture, write_picture
from tests.support.evaluation_support import npz, train_val

Array = np.ndarray[Any, Any]
IMAGE = picture(3, 20, 26).transpose(2, 0, 1)


def test_window_positions_are_the_centre_and_the_corners() -> None:
    assert window_positions((11, 8), (4, 5), 1) == [(3, 1)]
    assert window_positions((11, 8), (4, 5), 10) == [(3, 1), (0, 0), (0, 3), (7, 0), (7, 3)]
    with pytest.raises(DataError, match="a crop of 12x5 is larger than the image, 11x8: use --resize"):
        window_positions((11, 8), (12, 5), 1)


def test_one_crop_equals_the_transformation_of_caffe(tmp_path: Path) -> None:
    mean = np.random.default_rng(0).uniform(0, 99, IMAGE.shape).astype("float32")
    write_binaryproto(tmp_path / "mean.binaryproto", mean[None])
    for numbers, params in (
        (Preprocessing((1.5, 2.5, 3.5), 0.1), Transform(0.1, crop_size=13, mean_value=(1.5, 2.5, 3.5))),
        (Preprocessing((7.0,)), Transform(crop_size=13, mean_value=(7.0,))),
        (Preprocessing(mean_image=mean), Transform(crop_size=13, mean_file=str(tmp_path / "mean.binaryproto"))),
    ):
        np.testing.assert_array_equal(
            CaffePreprocessor((13, 13), numbers).views(IMAGE)[0], transform(IMAGE, params, "TEST")
        )


def test_ten_crops_are_five_windows_and_their_mirror_images() -> None:
    whole = IMAGE.astype("float32") - 9
    views = CaffePreprocessor((13, 15), Preprocessing((9.0,)), crops=10).views(IMAGE)
    assert views.shape == (10, 3, 13, 15)
    for view, (top, left) in zip(views, ((3, 5), (0, 0), (0, 11), (7, 0), (7, 11)), strict=False):
        np.testing.assert_array_equal(view, whole[:, top : top + 13, left : left + 15])
    np.testing.assert_array_equal(views[5:], views[:5, :, :, ::-1])


def test_the_shorter_side_is_resized_before_the_crop() -> None:
    recipe = CaffePreprocessor((10, 10), shorter=10)
    assert recipe._resized(IMAGE).shape == (3, 10, 13)
    np.testing.assert_array_equal(recipe.centre_image(IMAGE).transpose(2, 0, 1), recipe.views(IMAGE)[0].round())
    swapped = CaffePreprocessor((10, 10), shorter=10, swap=True)
    np.testing.assert_array_equal(swapped.views(IMAGE), recipe.views(IMAGE)[:, ::-1])
    np.testing.assert_array_equal(
        swapped.centre_image(IMAGE), recipe.centre_image(IMAGE)
    )  # a picture is blue first in any case


@pytest.mark.parametrize(
    "how",
    [
        Augment(crop=16, test_shorter=18, mean=(1.0, 2.0, 3.0), scale=(0.5, 1.0, 2.0)),
        Augment(crop=20, shorter=None, aspect=(1, 1), pad=4, lighting=0, mean=(5.0,)),
        Augment.none(),
    ],
    ids=["imagenet", "cifar", "none"],
)
def test_augment_preprocessor_equals_the_python_layer_in_the_test_phase(how: Augment) -> None:
    square = picture(1, 20, 20).transpose(2, 0, 1)
    expected = augment(square, how, "TEST", sample_rng(0, 0, 0))
    np.testing.assert_array_equal(AugmentPreprocessor(how).views(square)[0], expected)
    ten = AugmentPreprocessor(how, 10).views(square)
    np.testing.assert_array_equal(ten[0], expected)
    assert ten.shape == (10, *expected.shape)
    np.testing.assert_array_equal(ten[5:], ten[:5, :, :, ::-1])
    if how.crop:
        assert len({view.tobytes() for view in ten[:5]}) == 5


def _samples(text: str, source: str = "") -> EvalSamples:
    net = parse_net(text, source).at("TEST")
    own = net_data_layer(net)
    assert own is not None
    dataset = open_eval_dataset(EvalDataOptions(), own)
    shape = own.shape(dataset[0][0].shape)[1:]
    numbers = Preprocessing((4.0, 5.0, 6.0), 0.25) if own.augment is None else Preprocessing()
    return EvalSamples(dataset, image_preprocessor(shape, numbers, own, EvalDataOptions(), dataset), shape)


TRANSFORM = "transform_param { crop_size: 12 scale: 0.25 mean_value: 4 mean_value: 5 mean_value: 6 mirror: false }"


def test_preprocessing_equals_that_of_the_test_phase_of_training(tmp_path: Path) -> None:
    npz(tmp_path / "set.npz", 9, 16)
    made = make(tmp_path / "set.npz", tmp_path / "lmdb")
    lmdb = f'data_param {{ source: "{made.path}" batch_size: 9 backend: LMDB }}'
    for index in range(9):
        write_picture(tmp_path / f"{index}.png", picture(index, 14 + index, 18))
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/{index}.png {index % 3}\n" for index in range(9)))
    images = f'image_data_param {{ source: "{tmp_path}/list.txt" batch_size: 9 new_height: 15 new_width: 17 }}'
    for type_, param in (("Data", lmdb), ("ImageData", images)):
        layer = f'layer {{ name: "data" type: "{type_}" top: "data" top: "label" {TRANSFORM} {param} }}'
        samples = _samples(train_val(layer))
        own = net_data_layer(parse_net(train_val(layer)))
        assert own is not None
        data, labels = batches_of(own.layer, "TEST", 0).make(0)
        found = [samples.sample(index) for index in range(9)]
        np.testing.assert_array_equal(np.concatenate([views for views, _ in found]), data)
        assert [label for _, label in found] == labels.tolist()


def test_hdf5_data_are_not_changed(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((5, 3, 12, 12)).astype("float32")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["label"] = rows, np.arange(5.0)
    (tmp_path / "list.txt").write_text("a.h5\n")
    own = 'hdf5_data_param { source: "list.txt" batch_size: 5 }'
    text = train_val(f'layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" {own} }}')
    net = parse_net(text, str(tmp_path / "net.prototxt"))
    layer = net_data_layer(net)
    assert layer is not None
    dataset = open_eval_dataset(EvalDataOptions(), layer)
    recipe = image_preprocessor((3, 12, 12), Preprocessing(), layer, EvalDataOptions(), dataset)
    np.testing.assert_array_equal(recipe.views(dataset[3][0])[0], rows[3])
    assert dataset[3][1] == 3


def test_preprocessing_equals_that_of_the_python_layer_in_caffe(tmp_path: Path) -> None:
    npz(tmp_path / "set.npz", 6, 16)
    told = {"source": str(tmp_path / "set.npz"), "batch_size": 6, "augment": {"preset": "cifar", "crop": 12, "pad": 2}}
    own = {"module": "prototxt_gen.data.caffe_layer", "layer": "AugmentedData", "param_str": json.dumps(told)}
    fields = " ".join(f"{name}: {json.dumps(value)}" for name, value in own.items())
    samples = _samples(
        train_val(f'layer {{ name: "data" type: "Python" top: "data" top: "label" python_param {{ {fields} }} }}')
    )
    maker = BatchMaker(LoaderSpec.from_mapping(told | {"phase": "TEST"}))
    data, labels = np.empty((6, 3, 12, 12), "float32"), np.empty(6, "float32")
    maker.make(0, data, labels)
    np.testing.assert_array_equal(np.concatenate([samples.sample(index)[0] for index in range(6)]), data)


def test_another_size_scales_the_augmenting_layers_shorter_side() -> None:
    text = json.dumps({"source": "x", "batch_size": 1, "augment": {"preset": "imagenet"}})
    own = net_data_layer(
        parse_net(
            'layer { name: "d" type: "Python" top: "data" top: "label" python_param { layer: "AugmentedData" '
            f'module: "prototxt_gen.data.caffe_layer" param_str: {json.dumps(text)} }} }}'
        )
    )
    big = image_preprocessor((3, 320, 320), Preprocessing(), own, EvalDataOptions())
    assert big.description().startswith("shorter side 366, 1 crop of 320x320")
    assert (
        image_preprocessor((3, 224, 224), Preprocessing(), own, EvalDataOptions())
        .description()
        .startswith("shorter side 256")
    )
    assert (
        image_preprocessor((3, 320, 320), Preprocessing(), own, EvalDataOptions(resize=(330,)))
        .description()
        .startswith("shorter side 330")
    )


def test_a_mean_file_is_found_beside_the_net_or_an_error(tmp_path: Path) -> None:
    layer = (
        'layer { name: "d" type: "Data" top: "data" top: "label" transform_param { mean_file: "mean.binaryproto" } '
        'data_param { source: "set" batch_size: 1 } }'
    )
    own = net_data_layer(parse_net(layer, str(tmp_path / "net.prototxt")))
    with pytest.raises(WeightsError, match=r"mean\.binaryproto"):
        image_preprocessor((3, 12, 12), Preprocessing(), own, EvalDataOptions())
    write_binaryproto(tmp_path / "mean.binaryproto", np.full((1, 3, 12, 12), 2.0, "float32"))
    own = net_data_layer(parse_net(layer, str(tmp_path / "net.prototxt")))
    recipe = image_preprocessor((3, 12, 12), Preprocessing(), own, EvalDataOptions())
    np.testing.assert_array_equal(recipe.views(np.full((3, 12, 12), 5, "uint8")), np.full((1, 3, 12, 12), 3.0))


def test_channels_are_swapped_only_if_both_orders_are_known(tmp_path: Path) -> None:
    npz(tmp_path / "set.npz", 3)
    stored = open_eval_dataset(EvalDataOptions(tmp_path / "set.npz"), None, 3)
    assert stored_channel_order(stored) == "RGB"
    turned = {
        order: image_preprocessor((3, 12, 12), Preprocessing(channel_order=order), None, EvalDataOptions(), stored).swap  # type: ignore[attr-defined]
        for order in ("", "BGR", "RGB")
    }
    assert turned == {"": False, "BGR": True, "RGB": False}
    made = make(tmp_path / "set.npz", tmp_path / "lmdb", bgr=True)
    assert stored_channel_order(open_eval_dataset(EvalDataOptions(made.path), None)) == "BGR"


def test_synset_numbers_are_removed_from_class_names(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n\nnew york\n")
    assert class_names(None, tmp_path / "words.txt") == ("tench, Tinca tinca", "goldfish", "new york")
    with pytest.raises(PrototxtGenError, match=r"none\.txt: No such file"):
        class_names(None, tmp_path / "none.txt")
