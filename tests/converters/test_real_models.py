"""Real models in a folder beside the checkout, if it exists: each is converted and verified, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.models import FOLDER, caffe_model, listed
from converters.verification.comparison_inputs import seeded_inputs
from converters.verification.verification_report import NotVerifiedError
from converters.verification.verify import verify
from converters.write_models import write_onnx, write_torch
from prototxt_gen.common.errors import PrototxtGenError

pytestmark = pytest.mark.slow

REFUSED = {"normface-lenet-prelu": "inner_distance_param is not understood"}
"""Models that cannot be converted, and the reason: a parameter that only their fork has."""
NOT_VERIFIED = {"xilinx-face-detection": "2 of the 600 numbers of its weight are NaN"}
"""Models whose weights contain NaN, so that no comparison proves anything."""


ROWS = listed(FOLDER)


def test_models_are_present() -> None:
    if not ROWS:
        pytest.skip("no real models are beside the checkout")


@pytest.mark.parametrize("name", [name for name in ROWS if name not in REFUSED | NOT_VERIFIED])
def test_a_model_is_converted_and_verified(name: str, tmp_path: Path) -> None:
    model = caffe_model(FOLDER, ROWS[name])
    report = verify(model, seeded_inputs(model), ("pycaffe", "torch", "onnx"))
    assert report.verified, report
    result = write_onnx(model, tmp_path / "m.onnx")
    assert result.report is not None and result.report.verified
    result = write_torch(model, tmp_path / "exported")
    assert result.report is not None and result.report.verified


@pytest.mark.parametrize("name", [name for name in ROWS if name in REFUSED])
def test_a_model_with_an_unknown_parameter_is_refused(name: str) -> None:
    with pytest.raises(PrototxtGenError, match=REFUSED[name]):
        caffe_model(FOLDER, ROWS[name])


@pytest.mark.parametrize("name", [name for name in ROWS if name in NOT_VERIFIED])
def test_a_model_with_nan_in_its_weights_is_not_verified(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotVerifiedError, match=NOT_VERIFIED[name]):
        write_onnx(caffe_model(FOLDER, ROWS[name]), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
