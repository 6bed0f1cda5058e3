"""Fillers compared with real Caffe: equal values without randomness, the same distribution with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen.layers.data.dummy_data import fillers
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.train.fillers import blob_rng, fill
from tests.support.caffe_support import caffe_or_skip

pytestmark = pytest.mark.caffe
Array = np.ndarray[Any, Any]
NORMS = ("FAN_IN", "FAN_OUT", "AVERAGE")
SHAPE = (96, 40, 6, 6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    caffe_or_skip()
    return tmp_path


def _both(folder: Path, filler: str, shape: tuple[int, ...] = SHAPE) -> tuple[Array, Array]:
    """Return the values of our filler and of Caffe's, which a DummyData layer outputs."""
    caffe: Any = caffe_or_skip()
    dims = " ".join(f"dim: {size}" for size in shape)
    own_params = f"dummy_data_param {{ shape {{ {dims} }} data_filler {{ {filler} }} }}"
    text = f'layer {{ name: "d" type: "DummyData" top: "d" {own_params} }}'
    (folder / "net.prototxt").write_text(text)
    caffe.set_random_seed(3)
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TRAIN)
    net.forward()
    (own,) = fillers(parse_net(text).layers[0])
    return fill(own, shape, blob_rng(1, "d", 0)), net.blobs["d"].data.copy()


@pytest.mark.parametrize(("filler", "shape"), [
    ('type: "constant" value: -1.5', (3, 2)),
    ('type: "bilinear"', (2, 1, 4, 4)),
    ('type: "bilinear"', (1, 3, 5, 5)),
    ('type: "bilinear"', (4, 1, 16, 16)),
])  # fmt: skip
def test_fillers_without_randomness_equal_caffe(filler: str, shape: tuple[int, ...], folder: Path) -> None:
    ours, caffes = _both(folder, filler, shape)
    np.testing.assert_allclose(ours, caffes, rtol=1e-6)


@pytest.mark.parametrize("filler", [
    'type: "uniform" min: -2 max: 5',
    'type: "gaussian" mean: 2 std: 0.3',
    'type: "gaussian" std: 0.3 sparse: 12',
    *(f'type: "{kind}" variance_norm: {norm}' for kind in ("xavier", "msra") for norm in NORMS),
])  # fmt: skip
def test_random_fillers_have_caffes_distribution(filler: str, folder: Path) -> None:
    """Compare 138,240 numbers: count of zeros, mean, standard deviation, range, and quantiles of the others."""
    ours, caffes = _both(folder, filler)
    assert (ours == 0).mean() == pytest.approx((caffes == 0).mean(), abs=0.01)
    spread = float(caffes.std())
    assert ours.std() == pytest.approx(spread, rel=0.02)
    assert ours.mean() == pytest.approx(caffes.mean(), abs=0.02 * spread)
    points = np.linspace(0.01, 0.99, 33)
    mine, theirs = (np.quantile(made[made != 0], points) for made in (ours, caffes))
    np.testing.assert_allclose(mine, theirs, atol=0.06 * float(caffes[caffes != 0].std()))
    if "gaussian" not in filler and "msra" not in filler:
        assert (ours.min(), ours.max()) == pytest.approx((caffes.min(), caffes.max()), rel=0.001)


def test_positive_unitball_has_caffes_distribution(folder: Path) -> None:
    """The inputs of each output are uniform from 0 to 1, divided by their sum."""
    ours, caffes = _both(folder, 'type: "positive_unitball"', (50, 30, 3))
    for made in (ours, caffes):
        np.testing.assert_allclose(made.reshape(50, -1).sum(1), 1, rtol=1e-5)
        assert made.min() >= 0
    assert ours.std() == pytest.approx(caffes.std(), rel=0.05)
    assert ours.max() == pytest.approx(caffes.max(), rel=0.2)
