"""The PyTorch backend: resumed runs, gradient checkpointing, compilation, losses, and refused files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prototxt_gen.common.errors import WeightsError
from prototxt_gen.train.backend import Settings
from prototxt_gen.train.learned_parameters import solver_histories
from prototxt_gen.train.torch_backend import TorchBackend
from tests.support import torch_support as support
from tests.support import train_support as small
from tests.support.parity import exact
from tests.support.torch_support import _one_thread

__all__ = ["_one_thread"]
ROOT = Path(__file__).resolve().parents[2]
Array = np.ndarray[Any, Any]


BODY = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 3 bias_term: false weight_filler { type: "msra" } } }
layer { name: "bn1" type: "BN" bottom: "conv1" top: "bn1" bn_param { slope_filler { value: 1 } FROZEN } }
layer { name: "relu1" type: "ReLU" bottom: "bn1" top: "bn1" }
layer { name: "conv2" type: "Convolution" bottom: "bn1" top: "conv2"
  convolution_param { num_output: 6 kernel_size: 3 stride: 2 bias_term: false weight_filler { type: "msra" } } }
layer { name: "bn2" type: "BatchNorm" bottom: "conv2" top: "bn2" batch_norm_param { GLOBAL } }
layer { name: "scale2" type: "Scale" bottom: "bn2" top: "bn2" scale_param { bias_term: true } }
layer { name: "relu2" type: "ReLU" bottom: "bn2" top: "bn2" }
layer { name: "drop" type: "Dropout" bottom: "bn2" top: "bn2" dropout_param { dropout_ratio: DROP } }
layer { name: "ip" type: "InnerProduct" bottom: "bn2" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
"""A net with both kinds of batch normalisation, and Dropout."""
INPUT = """
name: "by hand"
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: BATCH dim: 3 dim: 10 dim: 10 } shape { dim: BATCH } } }
"""
SOLVER = 'type: "Nesterov" base_lr: 0.01 momentum: 0.9 weight_decay: 1e-3 lr_policy: "fixed"'


def _text(batch: int = 8, drop: float = 0.0, frozen: bool = False) -> str:
    text = INPUT.replace("BATCH", str(batch)) + BODY.replace("DROP", str(drop))
    text = text.replace("FROZEN", "frozen: true" if frozen else "")
    return text.replace("GLOBAL", "use_global_stats: true" if frozen else "moving_average_fraction: 0.9")


def _images(batch: int = 8) -> support.Batches:
    """Return a function that returns slices of an endless sequence of images as batches."""
    one = support.images(1, (3, 10, 10), 1)

    def batches(index: int) -> dict[str, Array]:
        rows = [one(index * batch + place) for place in range(batch)]
        return {name: np.concatenate([row[name] for row in rows]) for name in ("data", "label")}

    return batches


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return weights whose moving statistics come from real batches."""
    folder = tmp_path_factory.mktemp("start")
    ours = _train(support.write(folder, _text(), SOLVER), 5, batches=_images())
    ours.snapshot(folder / "start.caffemodel", folder / "start.solverstate")
    return folder / "start.caffemodel"


def _state(ours: TorchBackend) -> dict[str, list[Array]]:
    """Return all blobs and solver histories."""
    kept = [array.copy() for array in solver_histories(ours.learnable_params, ours.optimiser)]
    return support.blobs_of(ours) | {"histories": kept}


def _train(file: Path, iterations: int, settings: Settings | None = None, **more: Any) -> TorchBackend:
    return _run(support.backend(file, settings=settings, **more), iterations)


def _run(ours: TorchBackend, iterations: int) -> TorchBackend:
    for _ in range(iterations):
        ours.step()
    return ours


@pytest.mark.parametrize("end", ["", ".h5"])
def test_resumed_run_equals_an_uninterrupted_run_bit_for_bit(end: str, tmp_path: Path) -> None:
    """Resume at another iteration than the snapshots of the full run; with Dropout, BN, histories, a policy."""
    solver = SOLVER.replace('"fixed"', '"multistep" gamma: 0.5 stepvalue: 3 stepvalue: 9')
    file, batches = support.write(tmp_path, _text(drop=0.4), solver), _images()
    unbroken = _train(file, 12, batches=batches)
    broken = _train(file, 5, batches=batches)
    state = tmp_path / f"a.solverstate{end}"
    broken.snapshot(tmp_path / f"a.caffemodel{end}", state)
    resumed = support.backend(file, batches)
    resumed.restore(state)
    assert support.equal(_state(resumed), _state(broken))
    steps = [resumed.step() for _ in range(7)]
    assert [step.iteration for step in steps] == list(range(5, 12))
    assert support.equal(_state(resumed), _state(unbroken))


def test_data_position_is_resumed_with_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With crops, mirroring and Dropout, and with tests between the steps."""
    monkeypatch.chdir(small.folder(tmp_path / "run"))
    file = Path("solver.prototxt")
    unbroken, broken = support.backend(file), support.backend(file, settings=Settings(workers=2))
    expected = [unbroken.step().loss for _ in range(10)], unbroken.test(), unbroken.step().loss
    losses = [broken.step().loss for _ in range(6)]
    broken.snapshot(Path("a.caffemodel"), Path("a.solverstate"))
    broken.close()
    resumed = support.backend(file, settings=Settings(workers=1))
    resumed.restore(Path("a.solverstate"))
    losses += [resumed.step().loss for _ in range(4)]
    assert (losses, resumed.test(), resumed.step().loss) == expected
    resumed.close()
    assert support.equal(_state(resumed), _state(unbroken))


def test_test_nets_share_the_trained_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.folder(tmp_path, small.PLAIN))
    ours = support.backend(Path("solver.prototxt"))
    before = ours.test()[0]
    for _ in range(30):
        ours.step()
    after = ours.test()[0]
    assert before.keys() == after.keys() == {"accuracy", "loss"}
    assert after["loss"] < before["loss"]
    assert after["accuracy"] > before["accuracy"] + 0.2
    weight = next(step for step in ours.tests[0].net.lowered_layers if step.layer.name == "ip2").parameter_locations[
        "weight"
    ]
    trained = next(step for step in ours.net.lowered_layers if step.layer.name == "ip2").parameter_locations["weight"]
    assert weight.parameter is trained.parameter


def test_checkpointing_changes_neither_gradients_nor_statistics(tmp_path: Path) -> None:
    file = support.write(tmp_path, _text(drop=0.4), SOLVER)
    plain = _train(file, 4, batches=_images())
    checkpointing = _train(file, 4, Settings(workers=0, memory_efficient=True), batches=_images())
    assert len(checkpointing.total_loss.segments) > 1
    assert support.equal(_state(plain), _state(checkpointing))


def test_checkpointing_keeps_fewer_blobs(tmp_path: Path) -> None:
    import prototxt_gen
    from prototxt_gen.net.lowering_checks import analyse_for_conversion
    from prototxt_gen.runtime.torch_net import TorchNet
    from prototxt_gen.train.total_loss import TotalLoss

    made = prototxt_gen.model("attention-56-cifar", modules=(1, 1, 1), width=4, kind="input", batch=4)
    net = TorchNet(analyse_for_conversion(made.train_val.at("TRAIN"))).train()
    inputs = torch.randn(4, 3, 32, 32), torch.zeros(4)
    held = []
    for checkpointing in (False, True):
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = TotalLoss(net, checkpointing=checkpointing)(*inputs)[0]
        held.append(sum(kept.values()))
        del loss
    assert held[1] < held[0] / 2


def test_iter_size_sums_gradients_of_batches(start: Path, tmp_path: Path) -> None:
    whole = exact(support.write(tmp_path / "a", _text(8, frozen=True), SOLVER), _images(8))
    file = support.write(tmp_path / "b", _text(4, frozen=True), f"{SOLVER} iter_size: 2")
    halves = exact(file, _images(4))
    for ours in (whole, halves):
        ours.load_weights(start)
    losses = [(whole.step().loss, halves.step().loss) for _ in range(4)]
    assert [one for one, _ in losses] == pytest.approx([other for _, other in losses], rel=1e-6)
    assert support.worst(_state(whole), _state(halves))[0] < 1e-6


def test_bfloat16_run_learns_and_keeps_float32_weights(tmp_path: Path) -> None:
    file = support.write(tmp_path, _text(), SOLVER)
    ours = support.backend(file, _images(), Settings(workers=0, precision="bf16"))
    losses = [ours.step().loss for _ in range(40)]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    assert all(parameter.dtype == torch.float32 for parameter in ours.learned)
    plain = support.backend(file, _images())
    assert losses[0] == pytest.approx(plain.step().loss, rel=0.02)
    assert losses[0] != plain.step().loss


TERMS = """
layer { name: "first" type: "InnerProduct" bottom: "data" top: "first" propagate_down: false
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "second" type: "InnerProduct" bottom: "first" top: "second" propagate_down: false
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "unnamed" type: "SoftmaxWithLoss" bottom: "second" bottom: "label" loss_weight: 0.5 }
layer { name: "sum" type: "Reduction" bottom: "first" top: "sum" loss_weight: 0.25 }
layer { name: "all" type: "Power" bottom: "second" top: "all" loss_weight: 2 }
"""


def test_total_loss_uses_all_loss_weights(tmp_path: Path) -> None:
    """With an unnamed loss, an output with a loss weight, and a loss with several elements."""
    file = support.write(tmp_path, INPUT.replace("BATCH", "4") + TERMS, 'base_lr: 0 lr_policy: "fixed"')
    ours = support.backend(file, _images(4))
    blobs = ours.net.run({name: torch.from_numpy(array) for name, array in _images(4)(0).items()})
    found = {value.blob: blob.detach() for value, blob in blobs.items()}
    cross = torch.nn.functional.cross_entropy(found["second"], found["label"].long())
    step = ours.step()
    expected = 0.5 * cross + 0.25 * found["sum"] + 2 * found["all"].sum()
    assert step.loss == pytest.approx(expected.item(), rel=1e-5)
    assert step.outputs.keys() == {"sum"}
    learned = {
        slot.lowered.layer.name: slot.parameter_location for slot in ours.learnable_params if slot.role == "weight"
    }
    assert learned["first"] is not None
    _, inputs = ours.net.inputs, torch.from_numpy(_images(4)(0)["data"]).flatten(1)
    torch.testing.assert_close(
        learned["first"].parameter.grad, 0.25 * inputs.sum(0).expand(10, -1), rtol=1e-4, atol=1e-5
    )


def test_frozen_blobs_do_not_change(tmp_path: Path) -> None:
    text = _text(frozen=True).replace(
        'name: "conv2" type: "Convolution" bottom: "bn1" top: "conv2"',
        'name: "conv2" type: "Convolution" bottom: "bn1" top: "conv2" param { lr_mult: 0 }',
    )
    file = support.write(tmp_path, text, SOLVER)
    ours = support.backend(file, _images())
    before = support.blobs_of(ours)
    for _ in range(3):
        ours.step()
    after = support.blobs_of(ours)
    still = [f"{name}{i}" for name in before for i, b in enumerate(before[name]) if np.array_equal(b, after[name][i])]
    assert still == ["bn10", "bn11", "bn12", "bn13", "conv20", "bn20", "bn21", "bn22"]


def test_fine_tuning_reports_matching_layers(tmp_path: Path) -> None:
    file = support.write(tmp_path, _text(), SOLVER)
    trained = _train(file, 2, batches=_images())
    trained.snapshot(tmp_path / "a.caffemodel", tmp_path / "a.solverstate")
    other = support.write(tmp_path / "b", _text().replace('"ip"', '"ip-new"'), SOLVER)
    ours = support.backend(other, _images())
    lines = ours.load_weights(tmp_path / "a.caffemodel")
    assert "layer 'conv1': matched, 6x3x3x3" in lines
    assert any(line.startswith("layer 'ip-new': not in the file") for line in lines)
    assert np.array_equal(support.blobs_of(ours)["bn1"][3], support.blobs_of(trained)["bn1"][3])
    narrow = support.write(tmp_path / "c", _text().replace("num_output: 10", "num_output: 4"), SOLVER)
    with pytest.raises(WeightsError, match="layer 'ip': blob 0 is 10x54 in the file, 4x54 in the net"):
        support.backend(narrow, _images()).load_weights(tmp_path / "a.caffemodel")


def test_a_state_of_another_net_is_refused(tmp_path: Path) -> None:
    file = support.write(tmp_path, _text(), SOLVER)
    _train(file, 1, batches=_images()).snapshot(tmp_path / "a.caffemodel", tmp_path / "a.solverstate")
    adam = support.write(tmp_path / "b", _text(), 'type: "Adam" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed"')
    with pytest.raises(WeightsError, match="this solver has"):
        support.backend(adam, _images()).restore(tmp_path / "a.solverstate")
