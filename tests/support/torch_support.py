"""Helpers of tests of the PyTorch backend: published nets, synthetic images, and real Caffe's solver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prototxt_gen.net.solver import read_solver
from prototxt_gen.train.backend import Settings
from prototxt_gen.train.torch_backend import TorchBackend
from tests.support.caffe_support import caffe_or_skip

Array = np.ndarray[Any, Any]
Batches = Callable[[int], dict[str, Array]]

_INPUTS = """
layer {{ name: "data" type: "Input" top: "data" top: "label"
  input_param {{ shape {{ dim: {batch} dim: {channels} dim: {size} dim: {size} }} shape {{ dim: {batch} }} }} }}
"""
_TWICE = "param { lr_mult: 1 } param { lr_mult: 2 }"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Use one thread in the test module that imports this fixture, so that sums are reproducible."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _net(name: str, batch: int, channels: int, size: int, body: str) -> str:
    return f'name: "{name}"' + _INPUTS.format(batch=batch, channels=channels, size=size) + body


def _conv(name: str, bottom: str, outputs: int, filler: str, more: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {_TWICE} convolution_param {{ '
        f"num_output: {outputs} kernel_size: 5 {more} weight_filler {{ {filler} }} }} }}\n"
    )


def _inner(name: str, bottom: str, outputs: int, filler: str) -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {_TWICE} '
        f"inner_product_param {{ num_output: {outputs} weight_filler {{ {filler} }} }} }}\n"
    )


def _pool(name: str, bottom: str, kind: str, kernel: int) -> str:
    own = f"pool: {kind} kernel_size: {kernel} stride: 2"
    return f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" pooling_param {{ {own} }} }}\n'


def _relu(name: str, blob: str) -> str:
    return f'layer {{ name: "{name}" type: "ReLU" bottom: "{blob}" top: "{blob}" }}\n'


def _loss(bottom: str) -> str:
    return f'layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "{bottom}" bottom: "label" top: "loss" }}\n'


def lenet(batch: int) -> str:
    """Return LeNet as in Caffe's examples/mnist/lenet_train_test.prototxt, with an Input layer."""
    xavier = 'type: "xavier"'
    body = _conv("conv1", "data", 20, xavier) + _pool("pool1", "conv1", "MAX", 2)
    body += _conv("conv2", "pool1", 50, xavier) + _pool("pool2", "conv2", "MAX", 2)
    body += _inner("ip1", "pool2", 500, xavier) + _relu("relu1", "ip1") + _inner("ip2", "ip1", 10, xavier)
    return _net("LeNet", batch, 1, 28, body + _loss("ip2"))


LENET_SOLVER = 'base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005 lr_policy: "inv" gamma: 0.0001 power: 0.75'
"""Source: examples/mnist/lenet_solver.prototxt."""


def quick(batch: int) -> str:
    """Return the net of Caffe's examples/cifar10/cifar10_quick_train_test.prototxt, with an Input layer."""
    wide, narrow = 'type: "gaussian" std: 0.01', 'type: "gaussian" std: 0.0001'
    body = _conv("conv1", "data", 32, narrow, "pad: 2") + _pool("pool1", "conv1", "MAX", 3) + _relu("relu1", "pool1")
    body += _conv("conv2", "pool1", 32, wide, "pad: 2") + _relu("relu2", "conv2") + _pool("pool2", "conv2", "AVE", 3)
    body += _conv("conv3", "pool2", 64, wide, "pad: 2") + _relu("relu3", "conv3") + _pool("pool3", "conv3", "AVE", 3)
    tenth = 'type: "gaussian" std: 0.1'
    body += _inner("ip1", "pool3", 64, tenth) + _inner("ip2", "ip1", 10, tenth)
    return _net("CIFAR10_quick", batch, 3, 32, body + _loss("ip2"))


QUICK_SOLVER = 'base_lr: 0.001 momentum: 0.9 weight_decay: 0.004 lr_policy: "fixed"'
"""Source: examples/cifar10/cifar10_quick_solver.prototxt."""


def images(batch: int, shape: tuple[int, ...], spread: float, seed: int = 5) -> Batches:
    """Return a function that returns batches of noisy images of ten classes, with pixels of about ±`spread`."""
    centres = np.random.default_rng(seed).standard_normal((10, *shape))

    def batches(index: int) -> dict[str, Array]:
        rng = np.random.default_rng((seed, index))
        labels = rng.integers(0, 10, batch)
        pixels = spread * (centres[labels] + rng.standard_normal((batch, *shape)))
        return {"data": pixels.astype(np.float32), "label": labels.astype(np.float32)}

    return batches


def write(folder: Path, net: str, solver: str) -> Path:
    """Write net and solver prototxt; return the solver's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.prototxt").write_text(net)
    file = folder / "solver.prototxt"
    file.write_text(f'net: "{folder / "net.prototxt"}" max_iter: 1000 random_seed: 1 {solver}')
    return file


def backend(file: Path, batches: Batches | None = None, settings: Settings | None = None, **more: Any) -> TorchBackend:
    """Return a TorchBackend; default: without worker processes."""
    return TorchBackend(read_solver(file), settings or Settings(workers=0), batches, **more)


class CaffeSolver:
    """Real Caffe's solver in this process, with batches copied into its Input layer."""

    def __init__(self, file: Path) -> None:
        self.caffe = caffe_or_skip()
        self.solver = self.caffe.get_solver(str(file))

    def step(self, batch: Mapping[str, Array]) -> float:
        """Run one iteration on a batch and return its loss."""
        for name, array in batch.items():
            self.solver.net.blobs[name].data[...] = array
        self.solver.step(1)
        return float(self.solver.net.blobs["loss"].data)

    def blobs(self) -> dict[str, list[Array]]:
        """Return copies of all blobs by layer."""
        return {name: [blob.data.copy() for blob in blobs] for name, blobs in self.solver.net.params.items()}


def blobs_of(ours: TorchBackend) -> dict[str, list[Array]]:
    """Return copies of all blobs by layer."""
    found = ours.net.dump_weights().blobs
    return {name: [array.copy() for array in roles.values()] for name, roles in found.items()}


def worst(one: Mapping[str, list[Array]], other: Mapping[str, list[Array]]) -> tuple[float, str]:
    """Return the largest difference of any blob, relative to its largest element, and the blob's name."""
    assert one.keys() == other.keys()
    return max(
        (float(np.abs(a - b.reshape(a.shape)).max() / max(1e-12, np.abs(b).max())), f"{name}[{index}]")
        for name in one
        for index, (a, b) in enumerate(zip(one[name], other[name], strict=True))
    )


def equal(one: Mapping[str, list[Array]], other: Mapping[str, list[Array]]) -> bool:
    """Whether all blobs are equal bit for bit."""
    pairs = ((a, b) for name in one for a, b in zip(one[name], other[name], strict=True))
    return one.keys() == other.keys() and all(np.array_equal(a, b) for a, b in pairs)
