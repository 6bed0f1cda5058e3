"""Scores against labels: what was predicted, how sure, and how often right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.data_set_reader import Dataset
from prototxt_gen.evaluate.image_preprocessing import Recipe
from prototxt_gen.evaluate.predictors import Predictor
from prototxt_gen.ir import show

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
_THREADS = 4


@dataclass(frozen=True)
class Evaluation:
    """One backend on one data set: for each image its label, the class predicted, its score, and the label's rank.

    `ranks` counts from 0 how many other classes score at least as high as the label, as Caffe's Accuracy does: a tie
    counts against the net. Source: src/caffe/layers/accuracy_layer.cpp. `seconds` are those of the net alone.
    """

    backend: str
    classes: int
    labels: Array
    predicted: Array
    scores: Array
    ranks: Array
    seconds: float

    def __len__(self) -> int:
        return len(self.labels)

    def top(self, k: int) -> float:
        """Return the share of images whose label is among the k best."""
        return float((self.ranks < k).mean())

    @property
    def speed(self) -> float:
        """Images a second, all crops of an image together."""
        return len(self) / self.seconds if self.seconds else 0.0

    def confusion(self) -> Array:
        """Return classes×classes counts: row the label, column what was predicted."""
        table = np.zeros((self.classes, self.classes), np.int64)
        np.add.at(table, (self.labels, self.predicted), 1)
        return table

    def differs_from(self, other: Evaluation) -> Array:
        """Return the indices of images for which the two predict different classes."""
        return np.flatnonzero(self.predicted != other.predicted)


@dataclass(frozen=True)
class Samples:
    """A data set as a net takes it."""

    dataset: Dataset
    recipe: Recipe
    input: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.dataset)

    def one(self, index: int) -> tuple[Array, int]:
        """Return the views of one sample, crops×C×H×W, and its label; DataError where they do not fit the net."""
        image, label = self.dataset[index]
        if image.ndim != 3 or len(image) != self.input[0]:
            raise DataError(
                f"{self.dataset.path}: sample {index} is {show(image.shape)}; the net takes {self.input[0]} channels"
            )
        views = self.recipe.views(image)
        if views.shape[1:] != self.input:
            raise DataError(
                f"{self.dataset.path}: sample {index} comes out as {show(views.shape[1:])}; the net takes "
                f"{show(self.input)}: --resize or --input-size makes them fit"
            )
        return views, label

    def batches(self, size: int) -> Iterator[tuple[Array, Array]]:
        """Yield (views, labels) of `size` samples at a time, those of the next batch being prepared meanwhile."""
        with ThreadPoolExecutor(_THREADS) as pool:

            def prepare(start: int) -> list[Future[tuple[Array, int]]]:
                return [pool.submit(self.one, index) for index in range(start, min(start + size, len(self)))]

            ahead = prepare(0)
            for start in range(size, len(self) + size, size):
                found, ahead = [future.result() for future in ahead], prepare(start)
                yield np.concatenate([views for views, _ in found]), np.asarray([label for _, label in found])


def evaluate(predict: Predictor, samples: Samples, batch: int = 50, progress: Progress | None = None) -> Evaluation:
    """Run a predictor over all samples; the scores of an image are the mean over its crops."""
    made, seconds = [], 0.0
    crops, done = samples.recipe.crops, 0
    for views, labels in samples.batches(max(1, batch // crops)):
        started = time.perf_counter()
        scores = predict(views)
        seconds += time.perf_counter() - started
        made.append((scores.reshape(len(labels), crops, -1).mean(axis=1), labels))
        done += len(labels)
        if progress:
            progress(done, len(samples))
    if not made:
        raise DataError(f"{samples.dataset.path} holds no samples")
    counted = count(predict.name, *(np.concatenate(column) for column in zip(*made, strict=True)))
    return replace(counted, seconds=seconds)


def count(backend: str, scores: Array, labels: Array) -> Evaluation:
    """Compare scores N×classes with N labels; DataError where a label is no class of the net."""
    classes = scores.shape[1]
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(f"sample {wrong[0]} has label {labels[wrong[0]]}; the net has classes 0 to {classes - 1}")
    own = scores[np.arange(len(labels)), labels]
    ranks = (scores >= own[:, None]).sum(axis=1) - 1
    return Evaluation(backend, classes, labels, scores.argmax(axis=1), scores.max(axis=1), ranks, 0.0)
