"""The results of the demo's steps, from which the report is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prototxt_gen.demo.demo_images import DemoImages
from prototxt_gen.demo.zoo_check import ZooNet
from prototxt_gen.evaluate.scores import Evaluation

if TYPE_CHECKING:
    from converters.verification.verify import VerificationReport
    from prototxt_gen.evaluate.attention_maps import MaskedImage


@dataclass(frozen=True)
class DemoData:
    """The LMDBs of the demo: number of images in each, shape C×H×W, class names, mean of the training images."""

    train: Path
    test: Path
    count: tuple[int, int]
    shape: tuple[int, ...]
    names: tuple[str, ...]
    mean: tuple[float, ...]


@dataclass(frozen=True)
class TrainingResult:
    """The result of training: the table of metrics, the weights file, iterations and seconds."""

    metrics: Path
    weights: Path
    iterations: int
    seconds: float


@dataclass(frozen=True)
class FormatResult:
    """The trained net in one format, with the runtime that ran it, its size in bytes, and its evaluation."""

    name: str
    runtime: str
    path: Path
    bytes: int
    evaluation: Evaluation | None
    reason: str = ""
    """The reason why it was not run, if `evaluation` is None."""


@dataclass
class DemoResults:
    """The results of all steps, for the report. Steps that have not run yet have None or an empty sequence."""

    pictures: DemoImages
    sets: DemoData
    net: Path
    zoo: Sequence[ZooNet] = ()
    trained: TrainingResult | None = None
    formats: Sequence[FormatResult] = ()
    verification: VerificationReport | None = None
    seen: Sequence[MaskedImage] = ()
    mistakes: Sequence[MaskedImage] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def ran(self) -> list[FormatResult]:
        """Return the formats that were evaluated."""
        return [one for one in self.formats if one.evaluation is not None]
