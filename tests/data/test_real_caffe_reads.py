"""Real Caffe reads our data sets and sees the same samples as our readers; its Python layer uses our loader."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from prototxt_gen.data.batch_loader import BatchLoader, LoaderSpec
from prototxt_gen.data.data_set_reader import open_dataset
from prototxt_gen.data.info import mean
from prototxt_gen.data.make import make
from prototxt_gen.data.transform import Transform, transform
from tests.support import data_samples as samples

pytestmark = [
    pytest.mark.caffe,
    pytest.mark.skipif(importlib.util.find_spec("caffe") is None, reason="Caffe is not installed"),
]

ROOT = Path(__file__).resolve().parents[2]
Array = npt.NDArray[Any]

_FORWARD = """
import os, sys
os.environ["GLOG_minloglevel"] = "2"
import caffe, numpy as np
net = caffe.Net(sys.argv[1], getattr(caffe, sys.argv[4]))
found = {}
for batch in range(int(sys.argv[3])):
    if len(sys.argv) > 5 and batch == 2:
        net.layers[0].seek(int(sys.argv[5]))
    for name, blob in net.forward().items():
        found[f"{name}{batch}"] = blob.copy()
np.savez(sys.argv[2], **found)
"""


def _run(folder: Path, layer: str, batches: int = 2, phase: str = "TEST", *more: str) -> list[tuple[Array, Array]]:
    """Return batches of Caffe's data layer, computed in a child process, because Caffe may abort on errors."""
    (folder / "net.prototxt").write_text(f'layer {{ name: "d" top: "data" top: "label" {layer} }}')
    command = [str(folder / "net.prototxt"), str(folder / "out.npz"), str(batches), phase, *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _FORWARD, *command], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as stored:
        return [(stored[f"data{n}"], stored[f"label{n}"]) for n in range(batches)]


@pytest.mark.parametrize("encoded", [None, "png", "jpg"])
def test_data_layer_reads_our_lmdb(tmp_path: Path, encoded: str | None) -> None:
    src = samples.class_folders(tmp_path / "src")
    path = make(src, tmp_path / "lmdb", encoded=encoded).path
    layer = f'type: "Data" data_param {{ source: "{path}" batch_size: 6 backend: LMDB }}'
    (data, label), (again, _) = _run(tmp_path, layer)
    ours = open_dataset(path)
    np.testing.assert_array_equal(data, [image for image, _ in ours])
    np.testing.assert_array_equal(label, [label for _, label in ours])
    np.testing.assert_array_equal(data, again)
    if encoded != "jpg":
        np.testing.assert_array_equal(data[4], samples.picture(11).transpose(2, 0, 1))


def test_data_layer_reads_our_float_datums(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=[5, 6, 7])
    path = make(tmp_path / "a.npz", tmp_path / "lmdb").path
    data, label = _run(tmp_path, f'type: "Data" data_param {{ source: "{path}" batch_size: 3 backend: LMDB }}')[0]
    np.testing.assert_array_equal(data, x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(label, [5, 6, 7])


def test_hdf5_layer_reads_our_files(tmp_path: Path) -> None:
    samples.write_npz(tmp_path / "a.npz")
    made = make(tmp_path / "a.npz", tmp_path / "h5", "hdf5", file_bytes=360 * 15)
    layer = f'type: "HDF5Data" hdf5_data_param {{ source: "{made.source}" batch_size: 40 }}'
    (data, label), _ = _run(tmp_path, layer)
    ours = open_dataset(made.source)
    np.testing.assert_array_equal(data, [image for image, _ in ours])
    np.testing.assert_array_equal(label, [label for _, label in ours])


@pytest.mark.parametrize("color", [True, False])
def test_imagedata_reads_the_same_list(tmp_path: Path, color: bool) -> None:
    samples.class_folders(tmp_path / "p")
    listing = tmp_path / "list.txt"
    listing.write_text("dog/a 1.png 8\ncat/a 0.png 7\n")
    root = f"{tmp_path}/p/"
    layer = (f'type: "ImageData" image_data_param {{ source: "{listing}" root_folder: "{root}" batch_size: 2 '
             f"new_height: 9 new_width: 7 is_color: {str(color).lower()} }}")  # fmt: skip
    data, label = _run(tmp_path, layer)[0]
    ours = open_dataset(listing, "list", root=root, size=(9, 7), color=color)
    np.testing.assert_array_equal(label, [8, 7])
    # Caffe may carry another release of OpenCV, whose resize rounds otherwise by one step
    assert np.abs(data - np.stack([image for image, _ in ours]).astype(np.float32)).max() <= 1


@pytest.mark.parametrize(("fields", "text"), [
    (Transform(scale=0.00390625), "scale: 0.00390625"),
    (Transform(mean_value=(104, 117, 123), crop_size=7), "mean_value: [104, 117, 123] crop_size: 7"),
    (Transform(mean_value=(9.5,), scale=0.3, crop_size=8), "mean_value: 9.5 scale: 0.3 crop_size: 8"),
    (Transform(mean_file="MEAN", scale=2, crop_size=5), 'mean_file: "MEAN" scale: 2 crop_size: 5'),
])  # fmt: skip
def test_transformation_equals_caffe(tmp_path: Path, fields: Transform, text: str) -> None:
    path = make(samples.class_folders(tmp_path / "src"), tmp_path / "lmdb").path
    mean_file = str(tmp_path / "mean.binaryproto")
    mean(path, mean_file)
    fields = Transform(**{**vars(fields), "mean_file": fields.mean_file and mean_file})
    layer = f'type: "Data" data_param {{ source: "{path}" batch_size: 6 backend: LMDB }}'
    data, _ = _run(tmp_path, f"{layer} transform_param {{ {text.replace('MEAN', mean_file)} }}")[0]
    ours = [transform(image, fields, "TEST") for image, _ in open_dataset(path)]
    np.testing.assert_array_equal(data, ours)


def test_random_crops_and_mirrors_of_caffe_are_among_ours(tmp_path: Path) -> None:
    path = make(samples.class_folders(tmp_path / "src"), tmp_path / "lmdb").path
    fields = Transform(crop_size=10, mirror=True)
    layer = (f'type: "Data" data_param {{ source: "{path}" batch_size: 6 backend: LMDB }} '
             f"transform_param {{ crop_size: 10 mirror: true }}")  # fmt: skip
    theirs = [data for data, _ in _run(tmp_path, layer, 30, "TRAIN")]
    rng = np.random.default_rng(0)
    image = open_dataset(path)[0][0]
    ours = {transform(image, fields, "TRAIN", rng).tobytes() for _ in range(2000)}
    assert len(ours) == 3 * 7 * 2
    assert {batch[0].tobytes() for batch in theirs} <= ours
    assert len({batch[0].tobytes() for batch in theirs}) > 10


def test_python_layer_outputs_the_loaders_batches_and_seeks(tmp_path: Path) -> None:
    path = make(samples.class_folders(tmp_path / "src", each=4), tmp_path / "lmdb").path
    given = {"source": str(path), "batch_size": 3, "seed": 5, "workers": 2,
             "augment": {"crop": 10, "pad": 1, "mirror": True, "lighting": 0.1, "mean": [100]}}  # fmt: skip
    layer = ('type: "Python" python_param { module: "prototxt_gen.data.caffe_layer" layer: "AugmentedData" '
             f"param_str: '{json.dumps(given)}' }}")  # fmt: skip
    theirs = _run(tmp_path, layer, 4, "TRAIN", "9")
    for batch, (data, label) in zip((0, 1, 9, 10), theirs, strict=True):
        ours = BatchLoader(LoaderSpec.from_json(json.dumps({**given, "workers": 0, "start": batch}))).next()
        np.testing.assert_array_equal(data, ours[0])
        np.testing.assert_array_equal(label, ours[1])


def test_invalid_param_str_is_reported_with_our_message(tmp_path: Path) -> None:
    layer = ('type: "Python" python_param { module: "prototxt_gen.data.caffe_layer" layer: "AugmentedData" '
             """param_str: '{"source": "x", "batchsize": 3}' }""")  # fmt: skip
    with pytest.raises(AssertionError, match="did you mean 'batch_size'"):
        _run(tmp_path, layer)
