"""Fillers: Caffe's distributions, reproducible, and independent of the other layers of a net."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.schema.caffe_proto import FillerParameter
from prototxt_gen.train.fillers import blob_rng, fill

SHAPE = (64, 32, 5, 5)


def _fill(shape: tuple[int, ...] = SHAPE, **fields: object) -> np.ndarray:
    return fill(FillerParameter(**fields), shape, blob_rng(1, "conv1", 0))


def test_constant() -> None:
    assert (_fill((3, 2), value=1.5) == 1.5).all()
    assert _fill((3, 2)).dtype == np.float32


def test_uniform() -> None:
    made = _fill(type="uniform", min=-2.0, max=4.0)
    assert -2 <= made.min() < -1.9
    assert 3.9 < made.max() <= 4
    assert made.mean() == pytest.approx(1, abs=0.05)


def test_gaussian() -> None:
    made = _fill(type="gaussian", mean=3.0, std=0.5)
    assert made.mean() == pytest.approx(3, abs=0.02)
    assert made.std() == pytest.approx(0.5, rel=0.02)


def test_sparse_gaussian_has_the_given_number_of_nonzero_inputs() -> None:
    made = _fill((100, 400), type="gaussian", sparse=15)
    assert (made != 0).mean() == pytest.approx(15 / 100, abs=0.01)
    assert made[made != 0].std() == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize(("norm", "n"), [("FAN_IN", 800), ("FAN_OUT", 1600), ("AVERAGE", 1200)])
def test_xavier_and_msra(norm: str, n: int) -> None:
    xavier, msra = _fill(type="xavier", variance_norm=norm), _fill(type="msra", variance_norm=norm)
    assert np.abs(xavier).max() == pytest.approx((3 / n) ** 0.5, rel=0.01)
    assert xavier.var() == pytest.approx(1 / n, rel=0.03)
    assert msra.var() == pytest.approx(2 / n, rel=0.03)


def test_positive_unitball() -> None:
    made = _fill((6, 4, 3), type="positive_unitball")
    assert (made >= 0).all()
    np.testing.assert_allclose(made.reshape(6, -1).sum(1), 1, rtol=1e-6)


def test_bilinear_is_the_kernel_that_doubles() -> None:
    made = _fill((2, 1, 4, 4), type="bilinear")
    line = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_allclose(made, np.broadcast_to(np.outer(line, line), made.shape), rtol=1e-6)


def test_bilinear_of_an_odd_size() -> None:
    line = np.array([1, 2, 3, 2, 1]) / 3
    np.testing.assert_allclose(_fill((1, 1, 5, 5), type="bilinear")[0, 0], np.outer(line, line), rtol=1e-6)


def test_each_blob_gets_different_random_numbers() -> None:
    filler = FillerParameter(type="gaussian")
    keys = [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1)]
    made = [fill(filler, (8,), blob_rng(*key)) for key in keys]
    assert np.array_equal(made[0], fill(filler, (8,), blob_rng(1, "a", 0)))
    assert len({array.tobytes() for array in made}) == len(keys)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"type": "xaviar"}, (2, 2), "there is no filler 'xaviar'.*did you mean 'xavier'"),
        ({"type": "bilinear"}, (2, 1, 4, 3), "square kernels, not 2x1x4x3"),
        ({"type": "xavier", "sparse": 3}, (2, 2), "cannot be sparse"),
        ({"type": "gaussian", "sparse": 3}, (2, 2), "sparse 3 is not from 0 to the 2 outputs"),
        ({"type": "msra"}, (2, 0), "nothing to fill"),
    ],
)
def test_what_caffe_refuses(fields: dict[str, object], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(PrototxtGenError, match=message):
        _fill(shape, **fields)
