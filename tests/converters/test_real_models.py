"""Real models beside the checkout, where they are there: each converts and verifies, or is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.models import FOLDER, listed, subject
from converters.verification.comparison_inputs import seeded
from converters.verification.verify import verify
from converters.write_models import write_onnx, write_torch
from prototxt_gen.common.errors import PrototxtGenError

REFUSED = {"normface-lenet-prelu": "LabelSpecificRescale"}
"""Types that are not known, and so cannot be converted."""


ROWS = listed(FOLDER)


def test_there_are_models() -> None:
    if not ROWS:
        pytest.skip("no real models are beside the checkout")


@pytest.mark.parametrize("name", [name for name in ROWS if name not in REFUSED])
def test_converts_and_verifies(name: str, tmp_path: Path) -> None:
    one = subject(FOLDER, ROWS[name])
    found = verify(one, seeded(one), ("pycaffe", "torch", "onnx"))
    assert found.verified, found
    done = write_onnx(one, tmp_path / "m.onnx")
    assert done.report is not None and done.report.verified
    done = write_torch(one, tmp_path / "made")
    assert done.report is not None and done.report.verified


@pytest.mark.parametrize("name", [name for name in ROWS if name in REFUSED])
def test_is_refused_for_a_true_reason(name: str) -> None:
    with pytest.raises(PrototxtGenError, match=REFUSED[name]):
        subject(FOLDER, ROWS[name])
