"""Hostile .solverstates, in both forms, and the weights they name: a run resumes, or an error says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.net.solver import read_solver
from prototxt_gen.train.backend import Settings, create
from tests.support import train_support as support
from tests.support.hostile_support import damaged

pytestmark = pytest.mark.fuzz


@pytest.mark.parametrize("form", ["", ".h5"])
@pytest.mark.parametrize("which", ["state", "weights"])
def test_damaged_snapshots(which: str, form: str, tmp_path: Path) -> None:
    folder = support.folder(tmp_path, support.PLAIN)
    backend = create("torch", read_solver(folder / "solver.prototxt"), Settings(workers=0))
    backend.step()
    weights, state = tmp_path / f"s.caffemodel{form}", tmp_path / f"s.solverstate{form}"
    backend.snapshot(weights, state)
    backend.restore(state)
    target, refused = {"state": state, "weights": weights}[which], 0
    for content in damaged(target.read_bytes(), 80, seed=len(form)):
        other = tmp_path / "written"  # a new file: what is mapped is not written over
        other.write_bytes(content)
        other.replace(target)
        try:
            backend.restore(state)
        except PrototxtGenError as error:
            refused += 1
            assert str(error) and len(str(error)) < 2000
    backend.close()
    assert refused > 20
