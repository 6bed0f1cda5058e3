"""`prototxt-gen train` with PyTorch as a program: killed and resumed, interrupted, and under torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prototxt_gen import caffemodel
from tests.support import train_support as support

pytestmark = pytest.mark.slow

TORCH = ("--backend", "torch")


def test_killed_and_resumed_run_writes_the_same_files(tmp_path: Path) -> None:
    """The run uses an LMDB with random crops and mirroring, Dropout, momentum, and a decreasing learning rate."""
    whole, broken = (support.folder(tmp_path / name) for name in ("whole", "broken"))
    support.train(whole, *TORCH, "--workers", "0")
    process = support.begin(broken, *TORCH)
    support.wait_for(process, broken / "out" / "small_iter_10.solverstate")
    process.kill()
    process.communicate()
    support.train(broken, *TORCH, "--resume")
    for iteration in (20, 30):
        for end in ("caffemodel", "solverstate"):
            name = f"out/small_iter_{iteration}.{end}"
            assert (broken / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_writes_a_snapshot_and_exits(number: signal.Signals, status: int, tmp_path: Path) -> None:
    folder = support.folder(tmp_path)
    process = support.begin(folder, *TORCH, "--workers", "0", "--max-iter", "1000000", "--snapshot-every", "0")
    support.wait_for(process, folder / "out" / "small_metrics.csv", 200)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    (state,) = (folder / "out").glob("*.solverstate")
    assert f"stopped at iteration {caffemodel.read_solverstate(state).iter}\n" in out
    assert "Traceback" not in err


def _torchrun(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    environment = {**os.environ, "PYTHONPATH": str(support.ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "prototxt_gen", "train", "solver.prototxt", "--workers", "0", *options],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def test_torchrun_equals_one_process_with_double_batches(tmp_path: Path) -> None:
    """Also interrupted and resumed; only the first process writes files and messages."""
    net = support.RANDOM.replace("dropout_ratio: 0.3", "dropout_ratio: 0")
    two = support.folder(tmp_path / "two", net)
    one = support.folder(tmp_path / "one", net.replace("batch_size: 7", "batch_size: 14"))
    for options in (("--max-iter", "10"), ("--max-iter", "20", "--resume")):
        done = _torchrun(two, *options)
        assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained to iteration 20\n") == 1
    support.train(one, *TORCH, "--workers", "0", "--max-iter", "20")
    theirs = support.weights(one / "out/small_iter_20.caffemodel")
    for name, blobs in support.weights(two / "out/small_iter_20.caffemodel").items():
        for mine, other in zip(blobs, theirs[name], strict=True):
            assert abs(mine - other).max() < 1e-4 * abs(other).max(), name


def test_error_in_one_process_ends_both(tmp_path: Path) -> None:
    folder = support.folder(tmp_path, support.RANDOM.replace('"set" batch_size: 7', '"gone" batch_size: 7'))
    done = _torchrun(folder)
    assert done.returncode == 1
    assert "error: layer 'data' (Data): gone does not exist" in done.stderr
