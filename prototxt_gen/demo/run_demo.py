"""The demo: runs all steps in order, measures their times, and writes the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prototxt_gen.common import files
from prototxt_gen.common.optional_packages import need
from prototxt_gen.demo import demo_images, steps, train_step
from prototxt_gen.demo.results import DemoResults
from prototxt_gen.demo.steps import Progress
from prototxt_gen.demo.zoo_check import check_zoo
from prototxt_gen.models import GENERATED

ProgressBar = Callable[[str], AbstractContextManager[Progress | None]]
STEPS = 8


def no_progress_bar(what: str) -> AbstractContextManager[Progress | None]:
    """Return a context manager that shows no progress."""
    return nullcontext()


@dataclass(frozen=True)
class DemoOptions:
    """Options of the demo.

    `out` is the output folder. `minutes` is the approximate training time on two cores, from which the number of
    iterations is computed. `backend` is that of `train`. `data` is a data source of the user with parts train and test.
    `zoo` are the names of the nets that are emitted first. `say` prints a line, `bar` shows the progress of a step.
    """

    out: Path
    minutes: float = 3.0
    backend: str = "torch"
    data: Path | None = None
    force: bool = False
    zoo: Sequence[str] = tuple(GENERATED)
    say: Callable[[str], None] = print
    bar: ProgressBar = no_progress_bar

    @property
    def iterations(self) -> int:
        """Number of training iterations."""
        return max(1, round(self.minutes * steps.ITERATIONS_A_MINUTE))

    @property
    def report(self) -> Path:
        """Path of the report."""
        return self.out / "report.html"


@dataclass
class _StepTimer:
    """Announces each step and measures its time."""

    say: Callable[[str], None]
    seconds: dict[str, float]

    @contextmanager
    def step(self, name: str, description: str) -> Iterator[None]:
        self.say(f"[{len(self.seconds) + 1}/{STEPS}] {description}")
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


def run_demo(options: DemoOptions) -> DemoResults:
    """Run the demo and return its results. Raises PrototxtGenError if a step fails."""
    need("torch", "safetensors", "onnx", "onnxruntime", "lmdb", "cv2")  # checked now rather than after the training
    files.refuse_overwriting([options.report, options.out / "net"], options.force)
    timer = _StepTimer(options.say, {})
    with timer.step("zoo", "the zoo: emit, check, measure and draw every net"), options.bar("nets") as progress:
        members = check_zoo(options.out / "zoo", options.force, progress, options.zoo)
    with timer.step("data", "make LMDBs of real images"), options.bar("images") as progress:
        images = demo_images.find_or_download(options.out / "data", options.data, options.say)
        sets = steps.make_sets(images, options.out / "data", options.force, progress)
    with timer.step("emit", f"emit a small attention net for {images.name}"):
        net = steps.emit(images, sets, options.out / "net", options.iterations, options.force)
    results = DemoResults(images, sets, net, members, seconds=timer.seconds)
    _train_and_test(options, results, timer)
    return results


def _train_and_test(options: DemoOptions, results: DemoResults, timer: _StepTimer) -> None:
    with timer.step("train", f"train the net, {options.iterations:,} iterations with {options.backend}"):
        trained = results.trained = train_step.train(results.net, options.backend, options.force)
    caffe_model = steps.read_trained_net(results.net, trained)
    samples = steps.make_test_samples(results.net, results.sets, caffe_model)
    with timer.step("convert", "convert the net to ONNX and PyTorch"):
        converted = steps.convert(caffe_model, options.out, options.force)
    with timer.step("verify", "verify: compare all blobs of all runtimes for a test image"):
        results.verification = steps.verify(caffe_model, converted, samples)
    with timer.step("evaluate", f"evaluate every format on {len(samples):,} images"), options.bar("images") as progress:
        results.formats = steps.evaluate_all(caffe_model, trained, converted, samples, progress)
    with timer.step("report", f"write the report: {options.report}"):
        best = next(one.evaluation for one in results.ran() if one.evaluation is not None)
        results.seen, results.mistakes = steps.masked_test_images(caffe_model, samples, best, results.sets.names)
        _write_report(options, results)


def _write_report(options: DemoOptions, results: DemoResults) -> None:
    from prototxt_gen.demo.html_report import html_text

    files.write_text(options.report, html_text(results), options.force)
    files.write_text(options.out / "demo.json", json.dumps(as_data(results), indent=1) + "\n", options.force)


def as_data(results: DemoResults) -> dict[str, Any]:
    """Return the results of the demo as a dict for JSON."""
    evaluations = [(one, one.evaluation) for one in results.formats]
    return {
        "data": results.pictures.name,
        "origin": results.pictures.origin,
        "images": list(results.sets.count),
        "iterations": results.trained.iterations if results.trained else 0,
        "formats": [
            {
                "format": one.name,
                "runtime": one.runtime,
                "accuracy": images.top_accuracy(1) if images else None,
                "images_per_second": round(images.images_per_second, 1) if images else None,
                "not_run": one.reason or None,
            }
            for one, images in evaluations
        ],
        "differing": steps.count_differing(results.formats),
        "verified": results.verification.verified if results.verification else None,
        "worst_error": results.verification.worst if results.verification else None,
        "seconds": {name: round(value, 1) for name, value in results.seconds.items()},
    }
