"""Helpers of tests of training: a small data set, a small LeNet, and the command line in a child process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen import caffemodel
from prototxt_gen.data.make import make

ROOT = Path(__file__).resolve().parents[2]
Array = np.ndarray[Any, Any]

NET = """
name: "small"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 %s }
  data_param { source: "set" batch_size: 7 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.00390625 crop_size: 12 }
  data_param { source: "set" batch_size: 20 backend: LMDB } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1"
  inner_product_param { num_output: 12 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
%s
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""
RANDOM = NET % (
    "crop_size: 12 mirror: true",
    'layer { name: "drop1" type: "Dropout" bottom: "ip1" top: "ip1" dropout_param { dropout_ratio: 0.3 } }',
)
"""The net with random crops, mirroring and Dropout."""
PLAIN = NET.replace("crop_size: 12", "") % ("", "")
"""The net without randomness except in the fillers."""
SOLVER = """
net: "net.prototxt" test_iter: 3 test_interval: 10 base_lr: 0.02 momentum: 0.9 weight_decay: 0.001
lr_policy: "multistep" gamma: 0.5 stepvalue: 12 stepvalue: 20 display: 10 max_iter: 30 snapshot: 10
snapshot_prefix: "out/small" random_seed: 3
"""


def folder(path: Path, net: str = RANDOM, solver: str = SOLVER) -> Path:
    """Create a folder with an LMDB of 45 images, 1 x 14 x 14, a net and a solver; return the folder."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 45)
    pixels = (rng.integers(0, 60, (45, 14, 14, 1)) + labels[:, None, None, None] * 45).astype(np.uint8)
    np.savez(path / "set.npz", x=pixels, y=labels)
    make(path / "set.npz", path / "set")
    (path / "net.prototxt").write_text(net)
    (path / "solver.prototxt").write_text(solver)
    return path


def begin(where: Path, *options: str, solver: str = "solver.prototxt", **more: Any) -> subprocess.Popen[str]:
    """Start `prototxt-gen train solver.prototxt …` in a folder, on one thread."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "prototxt_gen", "train", solver, *options],
        cwd=where, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def train(where: Path, *options: str, status: int = 0, **more: Any) -> tuple[str, str]:
    """Run training to its end and return its stdout and stderr."""
    process = begin(where, *options, **more)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    return out, err


def wait_for(process: subprocess.Popen[str], path: Path, size: int = 0) -> None:
    """Wait until a file of a run exists and has at least this size."""
    while not path.exists() or path.stat().st_size < size:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def weights(path: Path) -> dict[str, list[Array]]:
    """Return copies of the blobs of a .caffemodel by layer name."""
    found = caffemodel.read(path).layers
    return {layer.name: [np.array(blob.array()) for blob in layer.blobs] for layer in found if layer.blobs}


def history(path: Path) -> list[Array]:
    """Return the histories of a .solverstate."""
    return [blob.array() for blob in caffemodel.read_solverstate(path).history]


def assert_same(one: Mapping[str, list[Array]], other: Mapping[str, list[Array]]) -> None:
    """Assert that all blobs are equal bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        for ours, theirs in zip(one[name], other[name], strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
