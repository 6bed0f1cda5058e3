"""The PyTorch trainer by itself: resumed runs, several processes, less memory, data of every kind, refusals."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prototxt_gen import caffemodel
from prototxt_gen.data.make import make
from prototxt_gen.errors import NetError, PrototxtGenError, UnsupportedError, WeightsError
from prototxt_gen.reader import parse_net
from prototxt_gen.train.backend import Settings
from prototxt_gen.train.feed import Feed, Place
from prototxt_gen.train.learnables import histories
from prototxt_gen.train.torch_backend import TorchBackend
from tests import torch_support as support
from tests import train_support as small

ROOT = Path(__file__).resolve().parents[1]
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
"""Both kinds of batch normalisation, and Dropout."""
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
    """Return batches that are slices of one endless row of images: their size changes nothing but where it is cut."""
    one = support.images(1, (3, 10, 10), 1)

    def batches(index: int) -> dict[str, Array]:
        rows = [one(index * batch + place) for place in range(batch)]
        return {name: np.concatenate([row[name] for row in rows]) for name in ("data", "label")}

    return batches


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return weights whose moving statistics are those of real batches."""
    folder = tmp_path_factory.mktemp("start")
    ours = _train(support.write(folder, _text(), SOLVER), 5, batches=_images())
    ours.snapshot(folder / "start.caffemodel", folder / "start.solverstate")
    return folder / "start.caffemodel"


def _state(ours: TorchBackend) -> dict[str, list[Array]]:
    """Return all blobs and histories."""
    kept = [array.copy() for array in histories(ours.slots, ours.optimiser)]
    return support.blobs_of(ours) | {"histories": kept}


def _train(file: Path, iterations: int, settings: Settings | None = None, **more: Any) -> TorchBackend:
    ours = support.backend(file, settings=settings, **more)
    for _ in range(iterations):
        ours.step()
    return ours


@pytest.mark.parametrize("end", ["", ".h5"])
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(end: str, tmp_path: Path) -> None:
    """At an iteration that has no snapshot in the unbroken run; Dropout, both statistics, a history, a policy."""
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


def test_data_goes_on_where_it_was_whatever_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops, mirrors and Dropout; tests between the steps."""
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


def test_test_nets_share_what_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.folder(tmp_path, small.PLAIN))
    ours = support.backend(Path("solver.prototxt"))
    before = ours.test()[0]
    for _ in range(30):
        ours.step()
    after = ours.test()[0]
    assert before.keys() == after.keys() == {"accuracy", "loss"}
    assert after["loss"] < before["loss"]
    assert after["accuracy"] > before["accuracy"] + 0.2
    weight = next(step for step in ours.tests[0].net.steps if step.layer.name == "ip2").learned["weight"]
    trained = next(step for step in ours.net.steps if step.layer.name == "ip2").learned["weight"]
    assert weight.parameter is trained.parameter


def test_checkpointing_changes_neither_gradients_nor_statistics(tmp_path: Path) -> None:
    file = support.write(tmp_path, _text(drop=0.4), SOLVER)
    plain = _train(file, 4, batches=_images())
    sparing = _train(file, 4, Settings(workers=0, memory_efficient=True), batches=_images())
    assert len(sparing.objective.segments) > 1
    assert support.equal(_state(plain), _state(sparing))


def test_checkpointing_keeps_fewer_blobs(tmp_path: Path) -> None:
    import prototxt_gen
    from prototxt_gen.lowering import ready
    from prototxt_gen.torch_net import TorchNet
    from prototxt_gen.train.objective import Objective

    made = prototxt_gen.model("attention-56-cifar", modules=(1, 1, 1), width=4, kind="input", batch=4)
    net = TorchNet(ready(made.train_val.at("TRAIN"))).train()
    inputs = torch.randn(4, 3, 32, 32), torch.zeros(4)
    held = []
    for sparing in (False, True):
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = Objective(net, sparing=sparing)(*inputs)[0]
        held.append(sum(kept.values()))
        del loss
    assert held[1] < held[0] / 2


def test_iter_size_sums_batches_up(start: Path, tmp_path: Path) -> None:
    whole = support.backend(support.write(tmp_path / "a", _text(8, frozen=True), SOLVER), _images(8))
    file = support.write(tmp_path / "b", _text(4, frozen=True), f"{SOLVER} iter_size: 2")
    halves = support.backend(file, _images(4))
    for ours in (whole, halves):
        ours.load_weights(start)
    losses = [(whole.step().loss, halves.step().loss) for _ in range(4)]
    assert [one for one, _ in losses] == pytest.approx([other for _, other in losses], rel=1e-5)
    assert support.worst(_state(whole), _state(halves))[0] < 1e-4


def test_bfloat16_learns_and_keeps_float32_weights(tmp_path: Path) -> None:
    file = support.write(tmp_path, _text(), SOLVER)
    ours = support.backend(file, _images(), Settings(workers=0, precision="bf16"))
    losses = [ours.step().loss for _ in range(40)]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    assert all(parameter.dtype == torch.float32 for parameter in ours.learned)
    plain = support.backend(file, _images())
    assert losses[0] == pytest.approx(plain.step().loss, rel=0.02)
    assert losses[0] != plain.step().loss


WORKER = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from prototxt_gen.train.backend import Settings
from tests import test_train_torch as tests, torch_support as support
given = json.loads(sys.argv[1])
ours = support.backend(Path(given["solver"]), settings=Settings(workers=0, sync_bn=given["sync"]), **(
    {"batches": tests.batches_of(given["batch"])} if given["batch"] else {}))
if given["start"]:
    ours.load_weights(Path(given["start"]))
losses = [ours.step().loss for _ in range(given["iterations"])]
scores = ours.test()
assert ours.agree(ours.processes.rank) == ours.processes.ranks - 1
if ours.processes.rank == 0:
    out = Path(given["out"])
    ours.snapshot(out / "a.caffemodel", out / "a.solverstate")
    (out / "told.json").write_text(json.dumps({"losses": losses, "scores": scores}))
ours.close()
"""


def batches_of(batch: int) -> support.Batches:
    """Return the batches that both processes draw from: each asks for its own by their index in the whole row."""
    return _images(batch)


def _two_processes(solver: Path, out: Path, iterations: int, **more: Any) -> dict[str, Any]:
    """Train with two processes over gloo; return what the first told."""
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
def test_two_processes_are_one_with_batches_twice_as_large(sync: bool, start: Path, tmp_path: Path) -> None:
    """With BN frozen; or learning, its statistics over both."""
    one = support.write(tmp_path / "one", _text(8, frozen=not sync), SOLVER)
    alone = support.backend(one, _images(8))
    alone.load_weights(start)
    losses = [alone.step().loss for _ in range(6)]
    two = support.write(tmp_path / "two", _text(4, frozen=not sync), SOLVER)
    told = _two_processes(two, tmp_path, 6, batch=4, sync=sync, start=str(start))
    assert told["losses"] == pytest.approx(losses, rel=1e-5)
    assert support.worst(_read(tmp_path / "a.caffemodel"), support.blobs_of(alone))[0] < 1e-4


def test_two_processes_divide_a_data_set_and_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops and mirrors too are each sample's own."""
    net = small.RANDOM.replace("dropout_ratio: 0.3", "dropout_ratio: 0")
    small.folder(tmp_path / "two", net)
    small.folder(tmp_path / "one", net.replace("batch_size: 7", "batch_size: 14"))
    told = _two_processes(tmp_path / "two" / "solver.prototxt", tmp_path, 5)
    monkeypatch.chdir(tmp_path / "one")
    alone = support.backend(Path("solver.prototxt"))
    assert told["losses"] == pytest.approx([alone.step().loss for _ in range(5)], rel=1e-5)
    assert told["scores"][0] == pytest.approx(alone.test()[0], rel=1e-4)
    assert support.worst(_read(tmp_path / "a.caffemodel"), support.blobs_of(alone))[0] < 1e-4


TERMS = """
layer { name: "first" type: "InnerProduct" bottom: "data" top: "first" propagate_down: false
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "second" type: "InnerProduct" bottom: "first" top: "second" propagate_down: false
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "unnamed" type: "SoftmaxWithLoss" bottom: "second" bottom: "label" loss_weight: 0.5 }
layer { name: "sum" type: "Reduction" bottom: "first" top: "sum" loss_weight: 0.25 }
layer { name: "all" type: "Power" bottom: "second" top: "all" loss_weight: 2 }
"""


def test_every_loss_counts_with_its_weight(tmp_path: Path) -> None:
    """A loss without a top, an output that is none by its type, and one of many numbers, which are summed up."""
    file = support.write(tmp_path, INPUT.replace("BATCH", "4") + TERMS, 'base_lr: 0 lr_policy: "fixed"')
    ours = support.backend(file, _images(4))
    blobs = ours.net.run({name: torch.from_numpy(array) for name, array in _images(4)(0).items()})
    found = {value.blob: blob.detach() for value, blob in blobs.items()}
    cross = torch.nn.functional.cross_entropy(found["second"], found["label"].long())
    step = ours.step()
    expected = 0.5 * cross + 0.25 * found["sum"] + 2 * found["all"].sum()
    assert step.loss == pytest.approx(expected.item(), rel=1e-5)
    assert step.outputs.keys() == {"sum"}
    learned = {slot.step.layer.name: slot.learned for slot in ours.slots if slot.role == "weight"}
    assert learned["first"] is not None
    _, inputs = ours.net.inputs, torch.from_numpy(_images(4)(0)["data"]).flatten(1)
    torch.testing.assert_close(
        learned["first"].parameter.grad, 0.25 * inputs.sum(0).expand(10, -1), rtol=1e-4, atol=1e-5
    )


def test_what_is_not_learned_stays(tmp_path: Path) -> None:
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


def test_fine_tuning_tells_what_fits(tmp_path: Path) -> None:
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


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with one data set as LMDB, HDF5 and a list of image files."""
    import cv2

    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 256, (11, 6, 6, 3), dtype=np.uint8), np.arange(11) % 3
    np.savez(tmp_path / "a.npz", x=x, y=y)
    make(tmp_path / "a.npz", tmp_path / "lmdb")
    make(tmp_path / "a.npz", tmp_path / "hdf5", to="hdf5")
    for number, image in enumerate(x):
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    (tmp_path / "list").write_text("".join(f"{number}.png {y[number]}\n" for number in range(11)))
    return tmp_path


def _sources(folder: Path) -> dict[str, str]:
    augmented = json.dumps({"source": str(folder / "lmdb"), "batch_size": 4, "augment": {"crop": 4, "mirror": True}})
    return {
        "Data": f'data_param {{ source: "{folder}/lmdb" batch_size: 4 backend: LMDB }} '
        "transform_param { crop_size: 4 mirror: true mean_value: 100 scale: 0.5 }",
        "HDF5Data": f'hdf5_data_param {{ source: "{folder}/hdf5/list.txt" batch_size: 4 shuffle: true }}',
        "ImageData": f'image_data_param {{ source: "{folder}/list" root_folder: "{folder}/" batch_size: 4 '
        "shuffle: true new_height: 5 new_width: 7 }",
        "DummyData": "dummy_data_param { shape { dim: 4 dim: 2 } shape { dim: 4 } "
        'data_filler { type: "gaussian" } data_filler { value: 3 } }',
        "Python": 'python_param { module: "prototxt_gen.data.caffe_layer" layer: "AugmentedData" '
        f"param_str: '{augmented}' }}",
    }


SHAPES = {
    "Data": (4, 3, 4, 4),
    "HDF5Data": (4, 3, 6, 6),
    "ImageData": (4, 3, 5, 7),
    "DummyData": (4, 2),
    "Python": (4, 3, 4, 4),
}


def _fed(text: str, **place: Any) -> Feed:
    return Feed(parse_net(text), Place("TRAIN", 7, **place))


@pytest.mark.parametrize("type_", SHAPES)
def test_any_batch_of_any_data_layer(type_: str, pictures: Path) -> None:
    """The same for any number of workers, in any order; and n-th of n processes as every n-th batch."""
    text = f'layer {{ name: "d" type: "{type_}" top: "data" top: "label" {_sources(pictures)[type_]} }}'
    feeds = [_fed(text), _fed(text, workers=2), *(_fed(text, rank=rank, ranks=2) for rank in range(2))]
    alone = [feeds[0].take(turn) for turn in range(6)]
    assert alone[0]["data"].shape == SHAPES[type_] == feeds[0].shapes["data"]
    assert len({batch["data"].tobytes() for batch in alone}) == 6
    for turn in (0, 1, 2, 5, 3):
        assert _same(feeds[1].take(turn), alone[turn])
    for turn in range(3):
        assert _same(feeds[2].take(turn), alone[2 * turn])
        assert _same(feeds[3].take(turn), alone[2 * turn + 1])
    for feed in feeds:
        feed.close()


def _same(one: dict[str, Array], other: dict[str, Array]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        ('type: "Input" input_param { shape { dim: 2 } }', NetError, r"'d' \(Input\): nothing feeds it"),
        (
            'type: "MemoryData" memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 }',
            NetError,
            "nothing feeds it",
        ),
        ('type: "WindowData"', UnsupportedError, r"'d' \(WindowData\): its data cannot be read without its Caffe"),
        ('type: "Data" data_param { source: "gone" batch_size: 2 }', PrototxtGenError, r"'d' \(Data\): .*gone"),
    ],
)
def test_what_cannot_be_fed(layer: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _fed(f'layer {{ name: "d" top: "data" top: "label" {layer} }}')


@pytest.mark.parametrize(
    ("net", "settings", "message"),
    [
        (INPUT + 'layer { name: "p" type: "Power" bottom: "data" top: "p" }', {}, "it has no loss in phase TRAIN"),
        (INPUT + TERMS.replace("loss_weight: 0.25", "loss_weight: 1 loss_weight: 1"), {}, "'sum'.*loss_weight"),
        (INPUT + TERMS, {"precision": "fp8"}, "there is no precision 'fp8'"),
        (INPUT + TERMS, {"gpu": 99}, "there is no card 99"),
        (INPUT + TERMS.replace('type: "xavier"', 'type: "xaviar"', 1), {}, "'first'.*its weight: .*'xavier'"),
        (INPUT + TERMS.replace("propagate_down: false", "param {} param {} param {}", 1), {}, "3 param, and 2 blobs"),
    ],
)
def test_what_cannot_be_trained(net: str, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = support.write(tmp_path, net.replace("BATCH", "4"), 'base_lr: 0.1 lr_policy: "fixed"')
    with pytest.raises(PrototxtGenError, match=message):
        support.backend(file, _images(4), Settings(workers=0, **settings))
