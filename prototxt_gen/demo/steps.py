"""The steps of the demo. Each calls the same functions as the command that it demonstrates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.common import files
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.data.data_set_reader import open_dataset
from prototxt_gen.data.info import info, mean
from prototxt_gen.data.make import make
from prototxt_gen.demo.demo_images import DemoImages
from prototxt_gen.demo.results import DemoData, FormatResult, TrainingResult
from prototxt_gen.evaluate.scores import EvalSamples, Evaluation
from prototxt_gen.models import model

if TYPE_CHECKING:
    from converters.common.net_with_weights import NetWithWeights
    from converters.verification.verify import VerificationReport
    from prototxt_gen.evaluate.attention_maps import MaskedImage

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

BASE_MODEL, WIDTH = "attention-56-cifar", 4
"""The net of the demo: attention-56-cifar with less than a third of its width, so that it trains in minutes."""
BATCH, TEST_BATCH = 32, 100
ITERATIONS_A_MINUTE = 700
"""Approximate speed on two cores. It is fixed, so that the demo trains the same iterations on every machine."""
BASE_LR = 0.1
"""Initial learning rate. It decreases linearly to 0, which gives better results than steps in such a short run."""
SEED = 1
SCALE = 1 / 64
"""Factor for pixel values, which gives them a standard deviation of about 1."""


def make_sets(pictures: DemoImages, folder: Path, force: bool, progress: Progress | None) -> DemoData:
    """Make the LMDBs of training and test images. Training images are shuffled here, as Caffe's Data layer does not."""
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
    return DemoData(train, made["test"].path, (found.count, made["test"].count), shape, names, mean(train).channels)


def emit(pictures: DemoImages, sets: DemoData, folder: Path, iterations: int, force: bool) -> Path:
    """Write the net and its solver to `folder`, which is returned. The paths of the data are relative to it."""
    changes = net_changes(pictures, sets)
    model(BASE_MODEL, solver_changes(sets, iterations), **changes).write(folder, force=force)
    return folder


def net_changes(pictures: DemoImages, sets: DemoData) -> dict[str, Any]:
    """Return the changes of BASE_MODEL for these images. Raises PrototxtGenError if the images are not square."""
    channels, height, width = sets.shape
    if height != width:
        raise PrototxtGenError(f"{pictures.path}: the images are {height}x{width}, but the net needs square images")
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
        "mirror": False,  # all shoes point in one direction, and a short run does not learn the other
    }


def solver_changes(sets: DemoData, iterations: int) -> dict[str, Any]:
    """Return the changes of the paper's solver, which has 160,000 iterations."""
    return {
        "max_iter": iterations,
        "base_lr": BASE_LR,
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


def read_trained_net(net: Path, trained: TrainingResult) -> NetWithWeights:
    """Read the deploy net with its weights, and with the preprocessing of the TEST data layer of the train_val."""
    from converters import read_net_with_weights
    from converters.common.preprocessing import preprocessing_of_net
    from prototxt_gen.net.prototxt_reader import read_net

    told = preprocessing_of_net(read_net(net / "train_val.prototxt").at("TEST"))
    return read_net_with_weights(net / "deploy.prototxt", trained.weights, preprocessing=told)


def convert(caffe_model: NetWithWeights, folder: Path, force: bool) -> dict[str, Path]:
    """Convert the net to ONNX and PyTorch and return the paths; both are verified before they are written."""
    from converters.write_models import write_onnx, write_torch

    onnx, torch = folder / "model.onnx", folder / "pytorch"
    write_onnx(caffe_model, onnx, force=force)
    write_torch(caffe_model, torch, "folder", force=force)
    return {"ONNX": onnx, "PyTorch": torch}


def make_test_samples(net: Path, sets: DemoData, caffe_model: NetWithWeights) -> EvalSamples:
    """Return the test images with their preprocessing for the net."""
    from prototxt_gen.evaluate.eval_data import EvalDataOptions, image_preprocessor

    dataset = open_dataset(sets.test)
    shape = caffe_model.analysis.shapes[caffe_model.input_values[0]][1:]
    return EvalSamples(
        dataset, image_preprocessor(shape, caffe_model.preprocessing, None, EvalDataOptions(), dataset), shape
    )


def verify(caffe_model: NetWithWeights, converted: Mapping[str, Path], samples: EvalSamples) -> VerificationReport:
    """Run a test image in every runtime and in both converted files, and compare all blobs."""
    from converters.pytorch_export import output_files as torch_file
    from converters.verification.runtimes import run_onnx_export
    from converters.verification.verify import verify as compare

    def run_folder(caffe_model: NetWithWeights, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return torch_file.run_module(caffe_model, torch_file.load_folder(converted["PyTorch"]), inputs)

    def run_model(caffe_model: NetWithWeights, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return run_onnx_export(caffe_model, converted["ONNX"], inputs)

    fed = {caffe_model.input_values[0].blob: samples.sample(0)[0]}
    others = {"model.onnx": run_model, "pytorch/model.py": run_folder}
    return compare(caffe_model, fed, ("pycaffe", "torch", "onnx"), others)


def evaluate_all(
    caffe_model: NetWithWeights,
    trained: TrainingResult,
    converted: Mapping[str, Path],
    samples: EvalSamples,
    progress: Progress | None,
) -> list[FormatResult]:
    """Evaluate the caffemodel (in PyTorch, and in real Caffe if installed) and both converted files."""
    from prototxt_gen.evaluate.converted_predictors import open_converted
    from prototxt_gen.evaluate.predictors import Predictor, make_predictor

    makers: dict[tuple[str, str, Path], Callable[[], Predictor]] = {
        ("Caffe", "real Caffe", trained.weights): lambda: make_predictor("pycaffe", caffe_model),
        ("Caffe", "prototxt-gen", trained.weights): lambda: make_predictor("torch", caffe_model),
        ("ONNX", "ONNX Runtime", converted["ONNX"]): lambda: open_converted(converted["ONNX"])[0],
        ("PyTorch", "PyTorch", converted["PyTorch"]): lambda: open_converted(converted["PyTorch"])[0],
    }
    made = []
    for (name, runtime, path), open_one in makers.items():
        try:
            one = open_one()
        except RuntimeMissingError as error:
            made.append(FormatResult(name, runtime, path, _size_in_bytes(path), None, str(error)))
            continue
        made.append(
            FormatResult(name, runtime, path, _size_in_bytes(path), _evaluate_and_close(one, samples, progress))
        )
    return made


def _evaluate_and_close(one: Any, samples: EvalSamples, progress: Progress | None) -> Evaluation:
    from prototxt_gen.evaluate.scores import evaluate

    try:
        return evaluate(one, samples, TEST_BATCH, progress)
    finally:
        one.close()


def _size_in_bytes(path: Path) -> int:
    found = [path] if path.is_file() else [file for file in path.rglob("*") if "__pycache__" not in file.parts]
    return sum(file.stat().st_size for file in found if file.is_file())


def count_differing(formats: Sequence[FormatResult]) -> int:
    """Return the number of test images for which the formats predict different classes."""
    found = [one.evaluation.predicted for one in formats if one.evaluation is not None]
    return int(sum(np.any([one != found[0] for one in found[1:]], axis=0))) if len(found) > 1 else 0


def masked_test_images(
    caffe_model: NetWithWeights, samples: EvalSamples, found: Evaluation, names: Sequence[str]
) -> tuple[list[MaskedImage], list[MaskedImage]]:
    """Return test images with masks: one of each class, predicted correctly if possible, and the 12 surest mistakes."""
    right = found.labels == found.predicted
    of_class = [np.flatnonzero(found.labels == label) for label in range(found.classes)]
    firsts = [int(images[np.argmax(right[images])]) for images in of_class if images.size]
    wrong = np.flatnonzero(~right)
    surest = wrong[np.argsort(-found.scores[wrong], kind="stable")][:12]
    return (
        _masked_images(caffe_model, samples, found, names, firsts),
        _masked_images(caffe_model, samples, found, names, [int(index) for index in surest]),
    )


def _masked_images(
    caffe_model: NetWithWeights, samples: EvalSamples, found: Evaluation, names: Sequence[str], indices: Sequence[int]
) -> list[MaskedImage]:
    from prototxt_gen.evaluate.attention_maps import MASK_PATTERN, MaskedImage
    from prototxt_gen.evaluate.classification import compute_masks

    if not indices:
        return []
    views = np.concatenate([samples.sample(index)[0][:1] for index in indices])
    made = []
    for index, masks in zip(indices, compute_masks(caffe_model, views, MASK_PATTERN), strict=True):
        label, predicted = (names[int(one)] for one in (found.labels[index], found.predicted[index]))
        told = f"{predicted}, {found.scores[index]:.0%}"
        made.append(MaskedImage(label, told, samples.preprocessor.centre_image(samples.dataset[index][0]), masks))
    return made
