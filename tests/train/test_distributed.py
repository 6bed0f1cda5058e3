"""Training in two processes gives the same weights as in one process with batches twice as large, in float64."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen import caffemodel
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.net.solver import read_solver
from prototxt_gen.train.backend import Settings
from prototxt_gen.train.device import Hardware
from tests.support import torch_support as support
from tests.support import train_support as small
from tests.support.parity import exact
from tests.train.test_torch_backend import SOLVER, _images, _one_thread, _text, start

pytestmark = pytest.mark.slow

__all__ = ["_one_thread", "start"]
ROOT = Path(__file__).resolve().parents[2]
Array = np.ndarray[Any, Any]


WORKER = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from prototxt_gen.train.backend import Settings
from tests.support import parity, torch_support as support; from tests.train import test_distributed as tests
given = json.loads(sys.argv[1])
ours = parity.exact(Path(given["solver"]), settings=Settings(workers=0, sync_bn=given["sync"]), **(
    {"batches": tests.batches_of(given["batch"])} if given["batch"] else {}))
if given["start"]:
    ours.load_weights(Path(given["start"]))
losses = [ours.step().loss for _ in range(given["iterations"])]
scores = ours.test()
assert ours.max_over_processes(ours.processes.rank) == ours.processes.ranks - 1
if ours.processes.rank == 0:
    out = Path(given["out"])
    ours.snapshot(out / "a.caffemodel", out / "a.solverstate")
    (out / "told.json").write_text(json.dumps({"losses": losses, "scores": scores}))
ours.close()
"""


def batches_of(batch: int) -> support.Batches:
    """Return the batches of the whole run, from which each process takes those of its own index."""
    return _images(batch)


def _two_processes(solver: Path, out: Path, iterations: int, **more: Any) -> dict[str, Any]:
    """Train with two processes over gloo; return losses and scores of the first process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"solver": str(solver), "out": str(out), "iterations": iterations, "batch": 0, "sync": False, "start": ""}
    command = [sys.executable, "-c", WORKER, json.dumps(given | more)]
    shared = {"PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
            cwd=solver.parent,
        )
        for rank in range(2)
    ]
    for process in started:
        _, words = process.communicate(timeout=240)
        assert process.returncode == 0, words
    told: dict[str, Any] = json.loads((out / "told.json").read_text())
    return told


def _read(weights: Path) -> dict[str, list[Array]]:
    return {
        layer.name: [blob.array() for blob in layer.blobs] for layer in caffemodel.read(weights).layers if layer.blobs
    }


@pytest.mark.parametrize("sync", [False, True])
def test_two_processes_equal_one_process_with_double_batches(sync: bool, start: Path, tmp_path: Path) -> None:
    """With frozen BN, and with learned BN whose statistics are computed over both processes."""
    one = support.write(tmp_path / "one", _text(8, frozen=not sync), SOLVER)
    alone = exact(one, _images(8))
    alone.load_weights(start)
    losses = [alone.step().loss for _ in range(6)]
    two = support.write(tmp_path / "two", _text(4, frozen=not sync), SOLVER)
    told = _two_processes(two, tmp_path, 6, batch=4, sync=sync, start=str(start))
    assert told["losses"] == pytest.approx(losses, rel=1e-6)
    assert support.worst(_read(tmp_path / "a.caffemodel"), support.blobs_of(alone))[0] < 1e-6


def test_two_processes_divide_a_data_set_and_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops and mirroring also depend only on the sample."""
    net = small.RANDOM.replace("dropout_ratio: 0.3", "dropout_ratio: 0")
    small.folder(tmp_path / "two", net)
    small.folder(tmp_path / "one", net.replace("batch_size: 7", "batch_size: 14"))
    told = _two_processes(tmp_path / "two" / "solver.prototxt", tmp_path, 5)
    monkeypatch.chdir(tmp_path / "one")
    alone = exact(Path("solver.prototxt"))
    assert told["losses"] == pytest.approx([alone.step().loss for _ in range(5)], rel=1e-6)
    assert told["scores"][0] == pytest.approx(alone.test()[0], rel=1e-4)
    assert support.worst(_read(tmp_path / "a.caffemodel"), support.blobs_of(alone))[0] < 1e-6


def test_several_processes_refuse_an_explicit_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(PrototxtGenError, match="chosen by their rank: leave out --gpu"):
        Hardware.of(read_solver(support.write(tmp_path, _text(), SOLVER)), Settings(gpu=0))
