"""Evaluation of a predictor on a data set: scores compared with labels, accuracy, confusion matrix, speed."""

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
from prototxt_gen.evaluate.image_preprocessing import ImagePreprocessor
from prototxt_gen.evaluate.predictors import Predictor
from prototxt_gen.ir import show

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
_THREADS = 4


@dataclass(frozen=True)
class Evaluation:
    """Results of one backend on one data set.

    For each image: `labels`, the `predicted` class with its score in `scores`, and `ranks`, the number of other classes
    that score at least as high as the label, so a tie counts as wrong. Source: src/caffe/layers/accuracy_layer.cpp.
    `seconds` is the time of the net without preprocessing.
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

    def top_accuracy(self, k: int) -> float:
        """Return the share of images whose label is among the k classes with the highest scores."""
        return float((self.ranks < k).mean())

    @property
    def images_per_second(self) -> float:
        """Images per second; all crops of an image count as one."""
        return len(self) / self.seconds if self.seconds else 0.0

    def confusion(self) -> Array:
        """Return the confusion matrix, classes×classes counts: rows are labels, columns are predicted classes."""
        table = np.zeros((self.classes, self.classes), np.int64)
        np.add.at(table, (self.labels, self.predicted), 1)
        return table

    def differs_from(self, other: Evaluation) -> Array:
        """Return the indices of the images whose predicted classes differ."""
        return np.flatnonzero(self.predicted != other.predicted)


@dataclass(frozen=True)
class EvalSamples:
    """A data set with its preprocessing for a net. `input` is the net's input C×H×W."""

    dataset: Dataset
    preprocessor: ImagePreprocessor
    input: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self, index: int) -> tuple[Array, int]:
        """Return the views of one sample, crops×C×H×W, and its label. Raises DataError if the shape is wrong."""
        image, label = self.dataset[index]
        if image.ndim != 3 or len(image) != self.input[0]:
            raise DataError(
                f"{self.dataset.path}: sample {index} is {show(image.shape)}; the net needs {self.input[0]} channels"
            )
        views = self.preprocessor.views(image)
        if views.shape[1:] != self.input:
            raise DataError(
                f"{self.dataset.path}: sample {index} is {show(views.shape[1:])} after preprocessing; the net needs "
                f"{show(self.input)}: use --resize or --input-size"
            )
        return views, label

    def batches(self, size: int) -> Iterator[tuple[Array, Array]]:
        """Yield (views, labels) of `size` samples at a time; threads prepare the next batch in the meantime."""
        with ThreadPoolExecutor(_THREADS) as pool:

            def prepare(start: int) -> list[Future[tuple[Array, int]]]:
                return [pool.submit(self.sample, index) for index in range(start, min(start + size, len(self)))]

            pending = prepare(0)
            for start in range(size, len(self) + size, size):
                ready, pending = [future.result() for future in pending], prepare(start)
                yield np.concatenate([views for views, _ in ready]), np.asarray([label for _, label in ready])


def evaluate(predict: Predictor, samples: EvalSamples, batch: int = 50, progress: Progress | None = None) -> Evaluation:
    """Run a predictor on all samples and return the evaluation; scores of an image are the mean over its crops.

    `batch` is the number of crops that the net gets at a time; `progress` is called with (images done, all images).
    """
    results, seconds = [], 0.0
    crops, done = samples.preprocessor.crops, 0
    for views, labels in samples.batches(max(1, batch // crops)):
        started = time.perf_counter()
        scores = predict(views)
        seconds += time.perf_counter() - started
        results.append((scores.reshape(len(labels), crops, -1).mean(axis=1), labels))
        done += len(labels)
        if progress:
            progress(done, len(samples))
    if not results:
        raise DataError(f"{samples.dataset.path} has no samples")
    scores, labels = (np.concatenate(column) for column in zip(*results, strict=True))
    return replace(evaluation_of_scores(predict.name, scores, labels), seconds=seconds)


def evaluation_of_scores(backend: str, scores: Array, labels: Array) -> Evaluation:
    """Return the evaluation of scores N×classes with N labels. Raises DataError if a label is no class of the net."""
    classes = scores.shape[1]
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(f"sample {wrong[0]} has label {labels[wrong[0]]}; the net has classes 0 to {classes - 1}")
    label_scores = scores[np.arange(len(labels)), labels]
    ranks = (scores >= label_scores[:, None]).sum(axis=1) - 1
    return Evaluation(backend, classes, labels, scores.argmax(axis=1), scores.max(axis=1), ranks, 0.0)
