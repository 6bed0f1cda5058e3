"""The solvers in PyTorch compared with recorded results of real Caffe, and with torch.optim where rules agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.net.solver import read_solver
from prototxt_gen.runtime.torch_net import TorchNet
from prototxt_gen.schema.caffe_proto import SolverParameter
from prototxt_gen.train.learned_parameters import solver_histories
from prototxt_gen.train.lr_policies import LearningRatePolicy
from prototxt_gen.train.optimisers import LearnedTensor, Optimiser
from prototxt_gen.train.torch_backend import TorchBackend
from prototxt_gen.weights import Weights
from tests.golden import solvers as golden
from tests.support.torch_support import _one_thread

__all__ = ["_one_thread"]

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Array]:
    return golden.load()


def _backend(folder: Path, case: str, recorded: dict[str, Array]) -> TorchBackend:
    """Return the backend of a recorded case, with Caffe's initial weights."""
    (folder / "net.prototxt").write_text(golden.NET)
    (folder / "solver.prototxt").write_text(golden.CASES[case])
    made = TorchBackend(read_solver(folder / "solver.prototxt"), batches=lambda index: golden.batch(recorded, index))
    made.net.load_weights(_by_role(made.net, golden.initial(recorded)))
    return made


def _by_role(net: TorchNet, blobs: dict[str, list[Array]]) -> Weights:
    roles = {step.layer.name: step.roles for step in net.lowered_layers if step.roles}
    return Weights({name: dict(zip(roles[name], arrays, strict=True)) for name, arrays in blobs.items()})


def _differs(one: Array, other: Array) -> float:
    """Return the largest difference relative to the largest element."""
    return float(np.abs(one - other).max() / max(1e-12, np.abs(other).max()))


@pytest.mark.parametrize("case", golden.CASES)
def test_ten_iterations_equal_caffe(case: str, tmp_path: Path, recorded: dict[str, Array]) -> None:
    backend = _backend(tmp_path, case, recorded)
    steps = [backend.step() for _ in range(golden.ITERATIONS)]
    np.testing.assert_allclose([step.rate for step in steps], recorded[f"{case}.rate"], rtol=1e-6)
    if backend.params.iter_size == 1:
        np.testing.assert_allclose([step.loss for step in steps], recorded[f"{case}.loss"], rtol=1e-4)
    made = backend.net.dump_weights()
    for layer, arrays in golden.blobs(recorded, f"{case}.weights").items():
        for ours, caffes in zip(made.of(layer).values(), arrays, strict=True):
            assert _differs(ours, caffes) < 1e-4, layer
    _check_histories(backend, golden.history(recorded, case))


def _check_histories(backend: TorchBackend, caffes: list[Array]) -> None:
    """Compare all histories except that of the frozen bias, to which Caffe adds weight decay without effect."""
    ours = list(solver_histories(backend.learnable_params, backend.optimiser))
    learned = [slot.optimiser_index is not None for slot in backend.learnable_params] * len(backend.optimiser.histories)
    assert sum(learned) < len(learned) == len(caffes)
    for mine, other, counts in zip(ours, caffes, learned, strict=True):
        assert mine.shape == other.shape
        assert not counts or _differs(mine, other) < 1e-4


STOCK = {
    "AdaGrad": (torch.optim.Adagrad, "delta: 1e-5", {"eps": 1e-5}),
    "RMSProp": (torch.optim.RMSprop, "rms_decay: 0.9 delta: 1e-5", {"alpha": 0.9, "eps": 1e-5}),
    "AdaDelta": (torch.optim.Adadelta, "momentum: 0.9 delta: 1e-5", {"rho": 0.9, "eps": 1e-5}),
}


@pytest.mark.parametrize("type_", STOCK)
def test_three_solvers_equal_torch_optim(type_: str) -> None:
    stock, text, own = STOCK[type_]
    rng = torch.Generator().manual_seed(1)
    ours, theirs = (torch.randn(7, 5, generator=rng.manual_seed(3)).requires_grad_() for _ in range(2))
    optimiser = Optimiser(_params(f"{text} weight_decay: 0.01"), type_, [LearnedTensor(ours)])
    other = stock([theirs], lr=0.1, weight_decay=0.01, **own)
    for iteration in range(8):
        gradient = torch.randn(7, 5, generator=rng)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimiser.update(0.1, iteration)
        other.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def _params(text: str) -> SolverParameter:
    from prototxt_gen.text import parse

    return SolverParameter.from_text(parse(text))


def test_parameters_without_gradient_still_decay() -> None:
    weight = torch.ones(3, requires_grad=True)
    Optimiser(_params("weight_decay: 0.5"), "SGD", [LearnedTensor(weight, decay_mult=2.0)]).update(0.1, 0)
    assert torch.equal(weight.detach(), torch.full((3,), 0.9))


def test_clipping_does_not_change_short_gradients() -> None:
    for length, expected in ((3.0, 3.0), (30.0, 4.0), (0.0, 0.0)):
        weight = torch.zeros(1, requires_grad=True)
        weight.grad = torch.full((1,), length)
        Optimiser(_params("clip_gradients: 4"), "SGD", [LearnedTensor(weight)]).update(1.0, 0)
        assert weight.item() == pytest.approx(-expected)


@pytest.mark.parametrize(
    ("type_", "text", "message"),
    [
        ("AdaGrad", "momentum: 0.9", "takes no momentum"),
        ("RMSProp", "momentum: 0.9", "takes no momentum"),
        ("RMSProp", "rms_decay: 1", "from 0 to below 1"),
        ("Adan", "", "there is no solver type 'Adan'; .*did you mean 'Adam'"),
        ("SGD", 'regularization_type: "L3"', "L1 or L2, not 'L3'"),
        ("SGD", "iter_size: 0", "at least 1"),
    ],
)
def test_what_caffe_refuses(type_: str, text: str, message: str) -> None:
    with pytest.raises(PrototxtGenError, match=message):
        Optimiser(_params(text), type_, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('lr_policy: "linear"', "there is no lr_policy 'linear'"),
        ('lr_policy: "step" gamma: 0.1', "'step': stepsize must be above 0"),
        ('lr_policy: "exp" gamma: -1', "'exp': gamma must not be below 0"),
        ('lr_policy: "poly"', "'poly': max_iter must be above 0"),
    ],
)
def test_lr_policies_that_caffe_refuses(text: str, message: str) -> None:
    with pytest.raises(PrototxtGenError, match=message):
        LearningRatePolicy(_params(text))


def test_multistep_decreases_at_most_once_per_iteration() -> None:
    policy = LearningRatePolicy(
        _params('base_lr: 1 lr_policy: "multistep" gamma: 0.5 stepvalue: 1 stepvalue: 1 stepvalue: 9')
    )
    assert [policy.rate(iteration) for iteration in range(4)] == [1, 0.5, 0.25, 0.25]
    assert policy.current_step == 2


def test_sigmoid_does_not_overflow() -> None:
    policy = LearningRatePolicy(_params('base_lr: 1 lr_policy: "sigmoid" gamma: 10 stepsize: 100'))
    assert policy.rate(0) == 0
    assert policy.rate(100) == 0.5
    assert policy.rate(10_000) == 1
