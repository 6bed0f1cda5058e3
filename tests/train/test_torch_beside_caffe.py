"""The PyTorch backend compared with real Caffe from equal weights, and runs that continue in the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import prototxt_gen
from prototxt_gen import caffemodel
from prototxt_gen.net.render import net_text
from tests.support import torch_support as support
from tests.support.parity import Spread, exact
from tests.support.torch_support import Batches, CaffeSolver, _one_thread

__all__ = ["_one_thread"]
pytestmark = [pytest.mark.slow, pytest.mark.caffe]


TOLERANCE = 1e-4
FEWEST, MOST = 10, 15
"""The least and the greatest number of iterations that are compared; float64 decides how many."""


def _compare(file: Path, start: Path, batches: Batches, most: int = MOST, channels_last: bool = True) -> None:
    """Train in both from the same weights, as long as rounding moves no blob by more than half the tolerance.

    Two float64 runs with slightly different first weights show how long that is. Real Caffe has only float32.
    """
    caffes, ours = CaffeSolver(file), support.backend(file, batches, channels_last=channels_last)
    caffes.solver.net.copy_from(str(start))
    ours.load_weights(start)
    spread, iteration = Spread(file, start, batches, channels_last=channels_last), 0
    while iteration < most and spread.step() < TOLERANCE / 2:
        theirs = caffes.step(batches(iteration))
        assert ours.step().loss == pytest.approx(theirs, rel=1e-3, abs=1e-5), iteration
        difference, where = support.worst(support.blobs_of(ours), caffes.blobs())
        assert difference < TOLERANCE, (iteration, where)
        iteration += 1
    assert iteration >= min(FEWEST, most)


def _trained(folder: Path, net: str, solver: str, batches: Batches, iterations: int) -> Path:
    """Train for a few iterations in float64, which gives equal weights on every machine; return the weights.

    Runs from fresh weights diverge soon: where biases are 0 and gradients nearly cancel, rounding that makes one ReLU
    active has a large effect, in Caffe as in PyTorch.
    """
    ours = exact(support.write(folder, net, solver), lambda index: batches(1000 + index))
    losses = [ours.step().loss for _ in range(iterations)]
    assert sum(losses[-20:]) < 0.6 * sum(losses[:20])
    ours.snapshot(folder / "trained.caffemodel", folder / "trained.solverstate")
    ours.close()
    return folder / "trained.caffemodel"


def test_lenet_with_its_published_solver(tmp_path: Path) -> None:
    net, batches = support.lenet(64), support.images(64, (1, 28, 28), 0.3)
    start = _trained(tmp_path, net, support.LENET_SOLVER, batches, 60)
    _compare(support.write(tmp_path, net, support.LENET_SOLVER), start, batches)


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return weights of CIFAR-quick: a wider first filler and twice the rate make training start soon."""
    net, batches = support.quick(10).replace("std: 0.0001", "std: 0.005"), support.images(10, (3, 32, 32), 20)
    solver = support.QUICK_SOLVER.replace("0.001", "0.002")
    return _trained(tmp_path_factory.mktemp("quick"), net, solver, batches, 120)


@pytest.mark.parametrize(("batch", "most"), [(20, MOST), (100, 3)])
def test_cifar_quick_with_its_published_solver(batch: int, most: int, quick_start: Path, tmp_path: Path) -> None:
    """Its published batch has 100 images; 20 are quicker."""
    file = support.write(tmp_path, support.quick(batch), support.QUICK_SOLVER)
    _compare(file, quick_start, support.images(batch, (3, 32, 32), 20), most)


def test_cifar_quick_from_its_published_fillers(tmp_path: Path) -> None:
    """Only the losses are compared, see `_trained`."""
    file = support.write(tmp_path, support.quick(100), support.QUICK_SOLVER)
    batches = support.images(100, (3, 32, 32), 20)
    caffes, ours = CaffeSolver(file), support.backend(file, batches)
    caffes.solver.net.save(str(tmp_path / "start.caffemodel"))
    ours.load_weights(tmp_path / "start.caffemodel")
    for iteration in range(10):
        assert ours.step().loss == pytest.approx(caffes.step(batches(iteration)), rel=1e-5), iteration


def test_a_small_attention_net(tmp_path: Path) -> None:
    """Without channels_last, because PyTorch's batch normalisation then sums more exactly."""
    made = prototxt_gen.model(
        "attention-56-cifar", modules=(1, 1, 1), width=4, input_size=16, kind="input", batch=16, test_batch=16
    )
    net, batches = net_text(made.train_val), support.images(16, (3, 16, 16), 1)
    solver = 'type: "Nesterov" momentum: 0.9 weight_decay: 1e-4'
    start = _trained(tmp_path, net, f'{solver} lr_policy: "fixed" base_lr: 0.1', batches, 40)
    stepped = f'{solver} lr_policy: "multistep" gamma: 0.1 stepvalue: 4 base_lr: 0.0002'
    _compare(support.write(tmp_path, net, stepped), start, batches, channels_last=False)


NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 8 dim: 3 dim: 12 dim: 12 } shape { dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 bias_term: false weight_filler { type: "msra" } } }
layer { name: "bn1" type: "BN" bottom: "conv1" top: "bn1"
  bn_param { slope_filler { value: 1 } } }
layer { name: "relu1" type: "ReLU" bottom: "bn1" top: "bn1" }
layer { name: "same1" type: "Convolution" bottom: "bn1" top: "same1"
  param { name: "shared" lr_mult: 0.5 decay_mult: 2 } param { lr_mult: 0 }
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "same2" type: "Convolution" bottom: "same1" top: "same2" param { name: "shared" } param { lr_mult: 2 }
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "tanh" type: "TanH" bottom: "same2" top: "same2" }
layer { name: "conv2" type: "Convolution" bottom: "same2" top: "conv2"
  param { lr_mult: 1 } param { lr_mult: 0 }
  convolution_param { num_output: 8 kernel_size: 3 stride: 2 weight_filler { type: "msra" } } }
layer { name: "bn2" type: "BatchNorm" bottom: "conv2" top: "bn2" batch_norm_param { moving_average_fraction: 0.9 } }
layer { name: "scale2" type: "Scale" bottom: "bn2" top: "bn2" scale_param { bias_term: true } }
layer { name: "relu2" type: "ReLU" bottom: "bn2" top: "bn2" }
layer { name: "ip" type: "InnerProduct" bottom: "bn2" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
"""A net with learned batch normalisation of both kinds, frozen biases, and a weight shared by two layers."""

SOLVERS = {
    "SGD": "base_lr: 0.01 momentum: 0.9",
    "Adam": "base_lr: 0.001 momentum: 0.9",
    "AdaDelta": "base_lr: 1 momentum: 0.95 delta: 1e-4",
}


@pytest.mark.parametrize("type_", SOLVERS)
@pytest.mark.parametrize("form", ["", ".h5"])
def test_run_continues_in_caffe_and_back_in_torch(type_: str, form: str, tmp_path: Path) -> None:
    own = f'{SOLVERS[type_]} weight_decay: 1e-3 lr_policy: "multistep" gamma: 0.5 stepvalue: 5 stepvalue: 14'
    name = tmp_path / "run"
    more = f'type: "{type_}" snapshot_prefix: "{name}" {"snapshot_format: HDF5" if form else ""}'
    file = support.write(tmp_path, NET, f"{own} {more}")
    batches = support.images(8, (3, 12, 12), 1)

    unbroken = CaffeSolver(file)
    unbroken.solver.snapshot()
    expected = [unbroken.step(batches(iteration)) for iteration in range(24)]

    ours = support.backend(file, batches)
    ours.load_weights(Path(f"{name}_iter_0.caffemodel{form}")) if not form else _load_h5(ours, name)
    losses = [ours.step().loss for _ in range(8)]
    ours.snapshot(Path(f"{name}_iter_8.caffemodel{form}"), Path(f"{name}_iter_8.solverstate{form}"))

    caffes = CaffeSolver(file)
    caffes.solver.restore(f"{name}_iter_8.solverstate{form}")
    losses += [caffes.step(batches(iteration)) for iteration in range(8, 16)]
    caffes.solver.snapshot()

    again = support.backend(file, batches)
    again.restore(Path(f"{name}_iter_16.solverstate{form}"))
    assert again.iteration == 16
    losses += [again.step().loss for _ in range(8)]

    assert losses == pytest.approx(expected, rel=1e-4)
    difference, where = support.worst(support.blobs_of(again), unbroken.blobs())
    assert difference < 2e-4, where


@pytest.mark.parametrize("type_", SOLVERS)
def test_histories_equal_caffes_in_order(type_: str, tmp_path: Path) -> None:
    """There is one history per learnable blob in Caffe's order, learned or not, and one per shared blob."""
    name = tmp_path / "run"
    own = f'type: "{type_}" {SOLVERS[type_]} weight_decay: 1e-3 lr_policy: "fixed" snapshot_prefix: "{name}"'
    file, batches = support.write(tmp_path, NET, own), support.images(8, (3, 12, 12), 1)
    caffes, ours = CaffeSolver(file), support.backend(file, batches)
    caffes.solver.net.save(f"{name}.caffemodel")
    ours.load_weights(Path(f"{name}.caffemodel"))
    for iteration in range(4):
        caffes.step(batches(iteration))
        ours.step()
    caffes.solver.snapshot()
    ours.snapshot(tmp_path / "a.caffemodel", tmp_path / "a.solverstate")
    theirs = caffemodel.read_solverstate(Path(f"{name}_iter_4.solverstate")).history
    mine = caffemodel.read_solverstate(tmp_path / "a.solverstate").history
    assert len(mine) == len(theirs) == len(ours.optimiser.histories) * (1 + 4 + 2 + 1 + 2 + 3 + 2 + 2)
    kept = [slot.optimiser_index is None for slot in ours.learnable_params] * len(ours.optimiser.histories)
    assert sum(kept) == len(ours.optimiser.histories) * (2 + 1 + 1 + 3)
    for slot, one, other, still in zip(ours.learnable_params * 2, mine, theirs, kept, strict=False):
        assert one.shape == other.shape
        if not still:
            np.testing.assert_allclose(one.array(), other.array(), rtol=0, atol=2e-4 * abs(other.array()).max(),
                                       err_msg=f"{slot.lowered.layer.name} {slot.role}")  # fmt: skip


def _load_h5(ours: object, name: Path) -> None:
    """HDF5 does not say what BN's fourth blob holds; for a solver state it is known, because Caffe wrote it."""
    ours.restore(Path(f"{name}_iter_0.solverstate.h5"))  # type: ignore[attr-defined]


def test_caffe_loads_every_layer_of_our_snapshot(tmp_path: Path) -> None:
    file = support.write(tmp_path, NET, 'base_lr: 0.01 lr_policy: "fixed"')
    ours = support.backend(file, support.images(8, (3, 12, 12), 1))
    ours.step()
    ours.snapshot(tmp_path / "a.caffemodel", tmp_path / "a.solverstate")
    caffes = CaffeSolver(file)
    caffes.solver.net.copy_from(str(tmp_path / "a.caffemodel"))
    assert support.worst(caffes.blobs(), support.blobs_of(ours))[0] == 0
    caffes.solver.net.save(str(tmp_path / "b.caffemodel"))
    mine, theirs = (caffemodel.read(tmp_path / f"{name}.caffemodel").layers for name in "ab")
    assert [layer.name for layer in mine] == [layer.name for layer in theirs if "split" not in layer.name]
