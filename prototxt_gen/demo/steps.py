"""The demo's steps. Each does what a command does, through the function that the command calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.common import files
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.data.data_set_reader import open_dataset
from prototxt_gen.data.info import info, mean
from prototxt_gen.data.make import make
from prototxt_gen.demo.demo_images import Pictures
from prototxt_gen.demo.zoo_check import Member
from prototxt_gen.evaluate.scores import Evaluation, Samples
from prototxt_gen.models import model

if TYPE_CHECKING:
    from converters.common.net_with_weights import NetWithWeights
    from converters.verification.verify import VerificationReport
    from prototxt_gen.evaluate.attention_maps import Seen

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

BASE, WIDTH = "attention-56-cifar", 4
"""The net: all of its attention modules, at less than a third of its width, so that it trains in minutes."""
BATCH, TEST_BATCH = 32, 100
ITERATIONS_A_MINUTE = 700
"""What two cores do, so that a run is as long as it was asked to be there, and the same run everywhere."""
RATE = 0.1
"""It falls to nothing in a straight line: in a run this short, somewhat better than in steps."""
SEED = 1
SCALE = 1 / 64
"""Grey values then spread by about 1."""


@dataclass(frozen=True)
class Sets:
    """The LMDBs made: images in each, shape C×H×W, classes, and the training images' mean per channel."""

    train: Path
    test: Path
    count: tuple[int, int]
    shape: tuple[int, ...]
    names: tuple[str, ...]
    mean: tuple[float, ...]


@dataclass(frozen=True)
class Trained:
    """What training left: the run's folder with its metrics, and the weights."""

    folder: Path
    weights: Path
    iterations: int
    seconds: float


@dataclass(frozen=True)
class Format:
    """One form of the trained net, what ran it, its size on the disk, and how it did."""

    name: str
    runtime: str
    path: Path
    bytes: int
    evaluation: Evaluation | None
    reason: str = ""
    """Why it was not run."""


@dataclass
class Story:
    """All that the demo found, for the report."""

    pictures: Pictures
    sets: Sets
    net: Path
    zoo: Sequence[Member] = ()
    trained: Trained | None = None
    formats: Sequence[Format] = ()
    verification: VerificationReport | None = None
    seen: Sequence[Seen] = ()
    mistakes: Sequence[Seen] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def ran(self) -> list[Format]:
        """Return the formats that were evaluated."""
        return [one for one in self.formats if one.evaluation is not None]


def make_sets(pictures: Pictures, folder: Path, force: bool, progress: Progress | None) -> Sets:
    """Make LMDBs of both parts, the training images shuffled, as Caffe's Data layer reads in order."""
    made = {
        part: make(
            pictures.path, folder / f"{part}_lmdb", split=part, shuffle_seed=seed, force=force, progress=progress
        )
        for part, seed in (("train", SEED), ("test", None))
    }
    train = made["train"].path
    found = info(train)
    names = pictures.classes or made["train"].classes or tuple(map(str, range(max(found.labels) + 1)))
    files.write_text(folder / "labels.txt", "".join(f"{name}\n" for name in names))
    shape = open_dataset(train)[0][0].shape
    return Sets(train, made["test"].path, (found.count, made["test"].count), shape, names, mean(train).channels)


def emit(pictures: Pictures, sets: Sets, folder: Path, iterations: int, force: bool) -> Path:
    """Write the net with its solver; return the folder. The net names its data relative to itself."""
    changes = net_changes(pictures, sets)
    model(BASE, solver_changes(sets, iterations), **changes).write(folder, force=force)
    return folder


def net_changes(pictures: Pictures, sets: Sets) -> dict[str, Any]:
    """Return what makes the net of the zoo this one; PrototxtGenError where the images are no squares."""
    channels, height, width = sets.shape
    if height != width:
        raise PrototxtGenError(f"{pictures.path}: the images are {height}x{width}; the net takes squares")
    return {
        "name": f"Attention-56-{pictures.name}",
        "width": WIDTH,
        "input_size": height,
        "channels": channels,
        "classes": len(sets.names),
        "kind": "lmdb",
        "train": f"../data/{sets.train.name}",
        "test": f"../data/{sets.test.name}",
        "batch": BATCH,
        "test_batch": min(TEST_BATCH, sets.count[1]),
        "mean": tuple(round(one, 3) for one in sets.mean),
        "scale": SCALE,
        "mirror": False,  # shoes all point one way: a short run has no time to learn the other
    }


def solver_changes(sets: Sets, iterations: int) -> dict[str, Any]:
    """Return what differs from the paper's recipe, which takes 160,000 iterations."""
    return {
        "max_iter": iterations,
        "base_lr": RATE,
        "lr_policy": "poly",
        "power": 1.0,
        "test_iter": (max(1, min(20, sets.count[1] // TEST_BATCH)),),
        "test_interval": max(1, iterations // 6),
        "test_initialization": False,
        "display": max(1, iterations // 24),
        "average_loss": 20,
        "snapshot": 0,
        "random_seed": SEED,
        "solver_mode": "CPU",
    }


def train(net: Path, backend: str, force: bool) -> Trained:
    """Train as the solver says."""
    from prototxt_gen.train.backend import Settings
    from prototxt_gen.train.snapshots import weights_of_state
    from prototxt_gen.train.training_run import TrainingJob, run

    started = time.monotonic()
    out = net / "snapshots"
    outcome = run(TrainingJob(net / "solver.prototxt", backend, out, restart=force, settings=Settings(workers=0)))
    if outcome.exit_code or outcome.state is None:
        raise PrototxtGenError(f"training was stopped at iteration {outcome.iteration}; nothing is reported")
    return Trained(out, weights_of_state(outcome.state), outcome.iteration, time.monotonic() - started)


def subject_of(net: Path, trained: Trained) -> NetWithWeights:
    """Read the deploy net with its weights; the preprocessing is that of the train_val's test data."""
    from converters import read_net_with_weights
    from converters.common.preprocessing import preprocessing_of_net
    from prototxt_gen.net.prototxt_reader import read

    told = preprocessing_of_net(read(net / "train_val.prototxt").at("TEST"))
    return read_net_with_weights(net / "deploy.prototxt", trained.weights, preprocessing=told)


def convert(subject: NetWithWeights, folder: Path, force: bool) -> dict[str, Path]:
    """Convert to ONNX and PyTorch; either is verified before it is there."""
    from converters.write_models import write_onnx, write_torch

    onnx, torch = folder / "model.onnx", folder / "pytorch"
    write_onnx(subject, onnx, force=force)
    write_torch(subject, torch, "folder", force=force)
    return {"ONNX": onnx, "PyTorch": torch}


def test_samples(net: Path, sets: Sets, subject: NetWithWeights) -> Samples:
    """Return the test images as the net takes them."""
    from prototxt_gen.evaluate.eval_data import Asked, recipe_for

    dataset = open_dataset(sets.test)
    shape = subject.analysis.shapes[subject.input_values[0]][1:]
    return Samples(dataset, recipe_for(shape, subject.preprocessing, None, Asked(), dataset), shape)


def verify(subject: NetWithWeights, converted: Mapping[str, Path], samples: Samples) -> VerificationReport:
    """Run a real test image through every runtime and both converted files, and compare all blobs."""
    from converters.pytorch_export import output_files as torch_file
    from converters.verification.runtimes import run_onnx_export
    from converters.verification.verify import verify as compare

    def run_folder(subject: NetWithWeights, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return torch_file.run_module(subject, torch_file.load_folder(converted["PyTorch"]), inputs)

    def run_model(subject: NetWithWeights, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return run_onnx_export(subject, converted["ONNX"], inputs)

    fed = {subject.input_values[0].blob: samples.one(0)[0]}
    others = {"model.onnx": run_model, "pytorch/model.py": run_folder}
    return compare(subject, fed, ("pycaffe", "torch", "onnx"), others)


def evaluate_all(
    subject: NetWithWeights,
    trained: Trained,
    converted: Mapping[str, Path],
    samples: Samples,
    progress: Progress | None,
) -> list[Format]:
    """Evaluate the caffemodel, in real Caffe where it is installed and in PyTorch, and both converted files."""
    from prototxt_gen.evaluate.converted_predictors import open_converted
    from prototxt_gen.evaluate.predictors import Predictor, predictor

    makers: dict[tuple[str, str, Path], Callable[[], Predictor]] = {
        ("Caffe", "real Caffe", trained.weights): lambda: predictor("pycaffe", subject),
        ("Caffe", "prototxt-gen", trained.weights): lambda: predictor("torch", subject),
        ("ONNX", "ONNX Runtime", converted["ONNX"]): lambda: open_converted(converted["ONNX"])[0],
        ("PyTorch", "PyTorch", converted["PyTorch"]): lambda: open_converted(converted["PyTorch"])[0],
    }
    made = []
    for (name, runtime, path), open_one in makers.items():
        try:
            one = open_one()
        except RuntimeMissingError as error:
            made.append(Format(name, runtime, path, _bytes(path), None, str(error)))
            continue
        made.append(Format(name, runtime, path, _bytes(path), _evaluated(one, samples, progress)))
    return made


def _evaluated(one: Any, samples: Samples, progress: Progress | None) -> Evaluation:
    from prototxt_gen.evaluate.scores import evaluate

    try:
        return evaluate(one, samples, TEST_BATCH, progress)
    finally:
        one.close()


def _bytes(path: Path) -> int:
    found = [path] if path.is_file() else [file for file in path.rglob("*") if "__pycache__" not in file.parts]
    return sum(file.stat().st_size for file in found if file.is_file())


def differing(formats: Sequence[Format]) -> int:
    """Return for how many test images not all formats predict the same class."""
    found = [one.evaluation.predicted for one in formats if one.evaluation is not None]
    return int(sum(np.any([one != found[0] for one in found[1:]], axis=0))) if len(found) > 1 else 0


def looks(
    subject: NetWithWeights, samples: Samples, found: Evaluation, names: Sequence[str]
) -> tuple[list[Seen], list[Seen]]:
    """Return masks over a test image of each class, the first that is right if one is, and the surest mistakes."""
    right = found.labels == found.predicted
    of_class = [np.flatnonzero(found.labels == label) for label in range(found.classes)]
    firsts = [int(images[np.argmax(right[images])]) for images in of_class if images.size]
    wrong = np.flatnonzero(~right)
    surest = wrong[np.argsort(-found.scores[wrong], kind="stable")][:12]
    return (
        _seen(subject, samples, found, names, firsts),
        _seen(subject, samples, found, names, [int(index) for index in surest]),
    )


def _seen(
    subject: NetWithWeights, samples: Samples, found: Evaluation, names: Sequence[str], indices: Sequence[int]
) -> list[Seen]:
    from prototxt_gen.evaluate.attention_maps import PATTERN, Seen
    from prototxt_gen.evaluate.classification import masks_in

    if not indices:
        return []
    views = np.concatenate([samples.one(index)[0][:1] for index in indices])
    made = []
    for index, masks in zip(indices, masks_in(subject, views, PATTERN), strict=True):
        label, predicted = (names[int(one)] for one in (found.labels[index], found.predicted[index]))
        told = f"{predicted}, {found.scores[index]:.0%}"
        made.append(Seen(label, told, samples.recipe.pixels(samples.dataset[index][0]), masks))
    return made
