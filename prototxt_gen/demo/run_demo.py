"""The demo from its first step to the report."""

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
from prototxt_gen.demo import demo_images, steps
from prototxt_gen.demo.steps import Progress, Story
from prototxt_gen.demo.zoo_check import zoo
from prototxt_gen.models import GENERATED

Bar = Callable[[str], AbstractContextManager[Progress | None]]
STEPS = 8


def no_bar(what: str) -> AbstractContextManager[Progress | None]:
    """Show nothing."""
    return nullcontext()


@dataclass(frozen=True)
class Demo:
    """What is asked for. `minutes` sets how long training takes on two cores: it is a number of iterations.

    `data` are images of one's own, with parts train and test; `zoo` names the nets emitted first. `say` tells of each
    step, `bar` shows its progress.
    """

    out: Path
    minutes: float = 3.0
    backend: str = "torch"
    data: Path | None = None
    force: bool = False
    zoo: Sequence[str] = tuple(GENERATED)
    say: Callable[[str], None] = print
    bar: Bar = no_bar

    @property
    def iterations(self) -> int:
        """The iterations of training."""
        return max(1, round(self.minutes * steps.ITERATIONS_A_MINUTE))

    @property
    def report(self) -> Path:
        """The page that is written in the end."""
        return self.out / "report.html"


@dataclass
class _Clock:
    """Tells of each step, and takes its time."""

    say: Callable[[str], None]
    seconds: dict[str, float]

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        self.say(f"[{len(self.seconds) + 1}/{STEPS}] {what}")
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


def run(demo: Demo) -> Story:
    """Do all of it; return what was found. PrototxtGenError for whatever stops it."""
    need("torch", "safetensors", "onnx", "onnxruntime", "lmdb", "cv2")  # rather than after the training
    files.refuse_overwriting([demo.report, demo.out / "net"], demo.force)
    clock = _Clock(demo.say, {})
    with clock.step("zoo", "the zoo: emit, check, measure and draw every net"), demo.bar("nets") as progress:
        members = zoo(demo.out / "zoo", demo.force, progress, demo.zoo)
    with clock.step("data", "real images into LMDBs"), demo.bar("images") as progress:
        found = demo_images.find(demo.out / "data", demo.data, demo.say)
        sets = steps.make_sets(found, demo.out / "data", demo.force, progress)
    with clock.step("emit", f"a small attention net for {found.name}"):
        net = steps.emit(found, sets, demo.out / "net", demo.iterations, demo.force)
    story = Story(found, sets, net, members, seconds=clock.seconds)
    _train_and_test(demo, story, clock)
    return story


def _train_and_test(demo: Demo, story: Story, clock: _Clock) -> None:
    with clock.step("train", f"train it, {demo.iterations:,} iterations with {demo.backend}"):
        trained = story.trained = steps.train(story.net, demo.backend, demo.force)
    subject = steps.subject_of(story.net, trained)
    samples = steps.test_samples(story.net, story.sets, subject)
    with clock.step("convert", "convert to ONNX and PyTorch"):
        converted = steps.convert(subject, demo.out, demo.force)
    with clock.step("verify", "verify: a test image through every runtime, blob by blob"):
        story.verification = steps.verify(subject, converted, samples)
    with clock.step("evaluate", f"evaluate every format on {len(samples):,} images"), demo.bar("images") as progress:
        story.formats = steps.evaluate_all(subject, trained, converted, samples, progress)
    with clock.step("report", f"the report: {demo.report}"):
        best = next(one.evaluation for one in story.ran() if one.evaluation is not None)
        story.seen, story.mistakes = steps.looks(subject, samples, best, story.sets.names)
        _write(demo, story)


def _write(demo: Demo, story: Story) -> None:
    from prototxt_gen.demo.html_report import html_text

    files.write_text(demo.report, html_text(story), demo.force)
    files.write_text(demo.out / "demo.json", json.dumps(as_data(story), indent=1) + "\n", demo.force)


def as_data(story: Story) -> dict[str, Any]:
    """Return the numbers of a demo as plain data."""
    evaluations = [(one, one.evaluation) for one in story.formats]
    return {
        "data": story.pictures.name,
        "origin": story.pictures.origin,
        "images": list(story.sets.count),
        "iterations": story.trained.iterations if story.trained else 0,
        "formats": [
            {
                "format": one.name,
                "runtime": one.runtime,
                "accuracy": found.top(1) if found else None,
                "images_per_second": round(found.speed, 1) if found else None,
                "not_run": one.reason or None,
            }
            for one, found in evaluations
        ],
        "differing": steps.differing(story.formats),
        "verified": story.verification.verified if story.verification else None,
        "worst_error": story.verification.worst if story.verification else None,
        "seconds": {name: round(value, 1) for name, value in story.seconds.items()},
    }
