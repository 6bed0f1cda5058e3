"""Helpers of tests of evaluation: a small classifier with random weights, images, and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from prototxt_gen.analysis import Analysis, analyse
from prototxt_gen.cli import cli
from prototxt_gen.net.prototxt_reader import parse_net
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import Weights, write

Array = np.ndarray[Any, Any]

BODY = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 3 stride: 2 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "branch/linear" type: "Convolution" bottom: "conv1" top: "branch/linear"
  convolution_param { num_output: 6 kernel_size: 1 } }
layer { name: "branch/mask" type: "Sigmoid" bottom: "branch/linear" top: "branch/mask" }
layer { name: "fusion" type: "Eltwise" bottom: "conv1" bottom: "branch/mask" top: "fusion"
  eltwise_param { operation: PROD } }
layer { name: "pool" type: "Pooling" bottom: "fusion" top: "pool" pooling_param { pool: AVE kernel_size: 5 stride: 1 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 7 } }
"""
DEPLOY = (
    'name: "tiny" input: "data" input_shape { dim: 1 dim: 3 dim: 12 dim: 12 }'
    + BODY
    + 'layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }'
)
ENDS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy/top-1" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy/top-1"
  include { phase: TEST } }
layer { name: "accuracy/top-5" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy/top-5"
  include { phase: TEST } accuracy_param { top_k: 5 } }
"""


def train_val(data_layer: str) -> str:
    """Return a train_val with this data layer."""
    return f'name: "tiny"\n{data_layer}{BODY}{ENDS}'


def random_weights(analysis: Analysis, seed: int = 0) -> Weights:
    """Return random weights that are large enough for different classes on different images."""
    rng = np.random.default_rng(seed)
    return Weights(
        {
            row.layer.name: {role: rng.normal(0, 0.5, spec.shape).astype("float32") for role, spec in row.blobs.items()}
            for row in analysis.rows
            if row.blobs
        }
    )


def tiny(folder: Path) -> tuple[Path, Path]:
    """Write deploy.prototxt and net.caffemodel of the small classifier; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "deploy.prototxt").write_text(DEPLOY, encoding="utf-8")
    analysis = analyse(parse_net(DEPLOY))
    write(folder / "net.caffemodel", analysis, random_weights(analysis), find_dialect("bvlc"))
    return folder / "deploy.prototxt", folder / "net.caffemodel"


def npz(file: Path, count: int = 30, size: int = 12, classes: int = 7, channels: int = 3) -> tuple[Array, Array]:
    """Write smooth images (N×H×W×C) and labels as .npz; return both arrays."""
    rng = np.random.default_rng(5)
    small = rng.integers(0, 256, (count, 4, 4, channels))
    x = np.kron(small, np.ones((1, -(-size // 4), -(-size // 4), 1)))[:, :size, :size].astype(np.uint8)
    y = rng.integers(0, classes, count)
    np.savez(file, x=x, y=y)
    return x, y


def call(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def call_json(*arguments: object) -> Any:
    """Run a command with --json and return its parsed output."""
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout)
