"""`prototxt-gen train` on PyTorch as a program: killed and resumed, interrupted, and in two processes by torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prototxt_gen import caffemodel
from tests.support import train_support as support

TORCH = ("--backend", "torch")


def test_killed_and_resumed_it_reaches_the_same_files(tmp_path: Path) -> None:
    """Data from an LMDB at random crops and mirrors, Dropout, momentum, and a rate that goes down in steps."""
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
def test_a_signal_snapshots_and_exits(number: signal.Signals, status: int, tmp_path: Path) -> None:
    folder = support.folder(tmp_path)
    process = support.begin(folder, *TORCH, "--workers", "0", "--max-iter", "1000000", "--snapshot-every", "0")
    support.wait_for(process, folder / "out" / "metrics.csv", 200)
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


def test_torchrun_trains_as_one_process_with_batches_twice_as_large(tmp_path: Path) -> None:
    """Broken off and resumed as well; the first process alone writes and speaks."""
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


def test_a_fault_ends_both_processes(tmp_path: Path) -> None:
    folder = support.folder(tmp_path, support.RANDOM.replace('"set" batch_size: 7', '"gone" batch_size: 7'))
    done = _torchrun(folder)
    assert done.returncode == 1
    assert "error: layer 'data' (Data): gone does not exist" in done.stderr
