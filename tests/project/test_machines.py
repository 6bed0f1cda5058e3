"""The settings of `make test-machines` name tests that are there, and change what the libraries run."""

from __future__ import annotations

import pytest
import torch

from tests.machines import MACHINES, Machine, files, without_effect

pytestmark = pytest.mark.slow


def test_the_files_are_there() -> None:
    assert all(path.is_file() for path in files())


@pytest.mark.parametrize("name", ["old CPU", "four threads"])
def test_a_setting_takes_effect(name: str) -> None:
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        pytest.skip("this PyTorch has no MKL, and may be of another kind of CPU")
    assert without_effect(MACHINES[name]) == []


def test_a_setting_without_effect_is_told() -> None:
    assert without_effect(Machine({}, ["ATen", "no such CPU"])) == ["no such CPU"]
