"""Nets that random comparisons with real Caffe found to train differently: missing or unusual gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.net.solver import read_solver
from prototxt_gen.train.backend import Settings, create
from tests.support import torch_support as support
from tests.support import train_support as small
from tests.support.caffe_support import caffe_or_skip
from tests.support.torch_support import Batches, CaffeSolver, _one_thread

__all__ = ["_one_thread"]
pytestmark = pytest.mark.caffe


DATA = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 4 dim: 2 dim: 3 dim: 3 } shape { dim: 4 } } }
"""
LEARNER = """
layer { name: "ip" type: "InnerProduct" bottom: "body" top: "ip" SPEC
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"
STATISTICS = (
    DATA + 'layer { name: "bn" type: "BatchNorm" bottom: "data" top: "body" }' + LEARNER.replace("SPEC", FROZEN)
)
"""Only statistics of batch normalisation change, which need no gradient."""
CUT_OFF = DATA + LEARNER.replace("body", "data").replace("SPEC", "").replace(
    'bottom: "ip" bottom: "label"', 'bottom: "ip" bottom: "label" propagate_down: false propagate_down: false'
)
"""The loss has no gradient: only weight decay changes the weights."""
PARAMETER = DATA + LEARNER.replace("SPEC", "").replace(
    'layer { name: "ip"',
    """layer { name: "own" type: "Parameter" top: "own" param { lr_mult: 3 }
  parameter_param { shape { dim: 4 dim: 2 dim: 3 dim: 3 } } }
layer { name: "sum" type: "Eltwise" bottom: "data" bottom: "own" top: "body" }
layer { name: "ip\"""",
)
"""For a Parameter layer, Caffe uses only the gradient of the last of the iter_size batches."""


SCALES = DATA.replace("dim: 4", "dim: 1") + """
layer { name: "channels" type: "Scale" bottom: "data" top: "channels" scale_param { bias_term: true } }
layer { name: "one" type: "Scale" bottom: "channels" top: "one" scale_param { axis: 0 num_axes: 0 } }
layer { name: "all" type: "Scale" bottom: "one" top: "body" scale_param { axis: 0 num_axes: -1 } }
""" + LEARNER.replace("SPEC", "")  # fmt: skip
"""With one image per batch, Caffe uses only the last batch's gradient of a scale, unless it is a scalar."""
CHAIN = """
layer { name: "first" type: "InnerProduct" bottom: "data" top: "first" param { lr_mult: 2 }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "still" type: "InnerProduct" bottom: "first" top: "body" param { lr_mult: 0 } param { lr_mult: 0 }
  propagate_down: false inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
"""
FORCED = "force_backward: true" + DATA + CHAIN + LEARNER.replace("SPEC", "")
"""With force_backward, propagate_down: false stops no gradient, and clip_gradients counts frozen blobs."""
NETS = {
    "statistics": STATISTICS,
    "cut off": CUT_OFF,
    "parameter": PARAMETER,
    "scales": SCALES,
    "forced": FORCED,
}
SECOND = 'layer { name: "loss2" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" }'


def _batches(net: str) -> Batches:
    """Return batches of which each two consecutive ones are equal, for a Caffe run with iter_size 2."""

    size = 1 if "dim: 1 " in net else 4

    def batch(index: int) -> dict[str, support.Array]:
        rng = np.random.default_rng((1, index // 2))
        pixels, labels = rng.standard_normal((size, 2, 3, 3)), rng.integers(0, 3, size)
        return {"data": pixels.astype(np.float32), "label": labels.astype(np.float32)}

    return batch


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_unusual_net_trains_as_in_caffe(net: str, tmp_path: Path) -> None:
    solver = 'base_lr: 0.1 momentum: 0.9 weight_decay: 0.1 lr_policy: "fixed" iter_size: 2 clip_gradients: 0.5'
    file, batches = support.write(tmp_path, net, solver), _batches(net)
    caffes, ours = CaffeSolver(file), support.backend(file, batches)
    caffes.solver.net.save(str(tmp_path / "start.caffemodel"))
    ours.load_weights(tmp_path / "start.caffemodel")
    start = caffes.blobs()
    for iteration in range(3):
        theirs = caffes.step(batches(2 * iteration))
        assert ours.step().loss == pytest.approx(theirs, rel=1e-5)
    difference, where = support.worst(support.blobs_of(ours), caffes.blobs())
    assert difference < 1e-5, where
    assert not support.equal(start, caffes.blobs())


SHARED = (
    DATA
    + """
layer { name: "one" type: "InnerProduct" bottom: "data" top: "one" param { name: "w" FIRST }
  inner_product_param { num_output: 18 weight_filler { type: "xavier" } } }
layer { name: "two" type: "InnerProduct" bottom: "one" top: "body" param { name: "w" SECOND }
  inner_product_param { num_output: 18 weight_filler { type: "xavier" } } }
"""
    + LEARNER.replace("SPEC", "")
)


@pytest.mark.parametrize("first", [True, False])
def test_shared_blob_frozen_in_one_layer_is_neither_learned_nor_clipped(first: bool, tmp_path: Path) -> None:
    """Caffe counts only the other layer's gradient in clip_gradients, so this is refused."""
    text = SHARED.replace("FIRST", "lr_mult: 0" if first else "").replace("SECOND", "" if first else "lr_mult: 0")
    solver = 'base_lr: 0.1 lr_policy: "fixed"'
    file, batches = support.write(tmp_path, text, solver), _batches(text)
    caffes, ours = CaffeSolver(file), support.backend(file, batches)
    caffes.solver.net.save(str(tmp_path / "start.caffemodel"))
    ours.load_weights(tmp_path / "start.caffemodel")
    for iteration in range(2):
        assert ours.step().loss == pytest.approx(caffes.step(batches(iteration)), rel=1e-5)
    difference, where = support.worst(support.blobs_of(ours), caffes.blobs())
    assert difference < 1e-5, where
    clipped = support.write(tmp_path, text, f"{solver} clip_gradients: 1")
    with pytest.raises(UnsupportedError, match=r"layer 'one' .* shares param 'w' with layer 'two'.*clip_gradients"):
        support.backend(clipped, batches)
    both = text.replace('name: "w" ', 'name: "w" lr_mult: 0 ').replace("lr_mult: 0 lr_mult: 0", "lr_mult: 0")
    support.backend(support.write(tmp_path, both, f"{solver} clip_gradients: 1"), batches)


def test_unnamed_losses_are_all_counted_with_caffe(tmp_path: Path) -> None:
    """Caffe names the top of each of them "(automatic)"."""
    caffe_or_skip()
    twice = small.PLAIN.replace('bottom: "label" top: "loss" }', 'bottom: "label" }') + SECOND
    folder = small.folder(tmp_path / "two", net=twice)
    both = _first_loss(folder)
    out, _ = small.train(folder, "--backend", "pycaffe", "--max-iter", "1")
    assert "test/accuracy: " in out and "test/loss" not in out
    assert both == pytest.approx(2 * _first_loss(small.folder(tmp_path / "one", net=small.PLAIN)), rel=1e-5)


def _first_loss(folder: Path) -> float:
    backend = create("pycaffe", read_solver(folder / "solver.prototxt"), Settings(workers=0, seed=3))
    try:
        return backend.step().loss
    finally:
        backend.close()
