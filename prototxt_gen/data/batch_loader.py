"""Batches with augmentation for the Python layer `AugmentedData`, each a pure function of (seed, batch index).

No state is kept between batches. Sample n of the run (n = batch index x batch size + index in the batch) is the n-th of
a sequence of epochs, each a permutation drawn from (seed, epoch), and its augmentation is drawn from (seed, n). So the
state of the data is one number, the index of the next batch, and every number of workers gives the same pixels.

`BatchMaker` computes any batch; `BatchLoader` returns them in order and uses `worker_processes` to compute them ahead.
Caffe's own data layers are in `train.data_layer_batches`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.common.errors import nearest
from prototxt_gen.data.augmentation import Augment, augment, sample_rng
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.data_set_reader import Dataset, open_dataset

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LoaderSpec:
    """The data set to load and how to turn it into batches: the fields of a layer's param_str.

    `source`, `kind`, `root`, `split` and `color` are arguments of `open_dataset`. `shuffle` None shuffles in phase
    "TRAIN" only. `workers` is the number of worker processes; 0 computes batches in this process. `start` is the index
    of the first batch. Raises DataError for invalid values.
    """

    source: str
    batch_size: int
    phase: str = "TRAIN"
    seed: int = 0
    shuffle: bool | None = None
    augment: Augment = field(default_factory=Augment.none)
    kind: str | None = None
    root: str | None = None
    split: str | None = None
    color: bool | None = None
    workers: int = 2
    start: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0 or self.start < 0 or self.seed < 0:
            raise DataError("data: batch_size must be above 0, and workers, start and seed not below it")
        if self.phase not in ("TRAIN", "TEST"):
            raise DataError(f"data: phase is TRAIN or TEST, not {self.phase!r}")

    @property
    def shuffled(self) -> bool:
        """Whether the samples of each epoch are shuffled."""
        return self.phase == "TRAIN" if self.shuffle is None else self.shuffle

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> LoaderSpec:
        """Return the spec of a JSON object. Raises DataError for unknown and for missing names."""
        field_names = [entry.name for entry in fields(cls)]
        for name in mapping:
            if name not in field_names:
                raise DataError(f"data: no field {name!r}{nearest(name, field_names)}")
        for name in ("source", "batch_size"):
            if name not in mapping:
                raise DataError(f"data: {name} is missing")
        return cls(**{**mapping, "augment": Augment.from_mapping(mapping.get("augment", {}))})

    def to_json(self) -> str:
        """Return the spec as JSON, for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LoaderSpec:
        """Return the spec of a JSON text, such as the param_str of a layer. Raises DataError if it is invalid."""
        try:
            mapping = json.loads(text or "{}")
        except ValueError as error:
            raise DataError(f"param_str is not JSON: {error}") from error
        if not isinstance(mapping, dict):
            raise DataError('param_str must be a JSON object such as {"source": "train_lmdb", "batch_size": 64}')
        return cls.from_mapping(mapping)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> Array:
    return np.random.default_rng((seed, epoch, 0, 2)).permutation(size)


def sample_index(number: int, size: int, seed: int, shuffled: bool) -> int:
    """Return the index, in a data set of `size` samples, of sample number `number` of the run."""
    epoch, position = divmod(number, size)
    return int(_permutation(seed, epoch, size)[position]) if shuffled else position


class BatchMaker:
    """Computes any batch of a spec, in the calling process. The spec can be passed as JSON."""

    def __init__(self, spec_or_json: LoaderSpec | str) -> None:
        self.spec = spec = LoaderSpec.from_json(spec_or_json) if isinstance(spec_or_json, str) else spec_or_json
        self.dataset: Dataset = open_dataset(spec.source, spec.kind, color=spec.color, root=spec.root, split=spec.split)
        if not len(self.dataset):
            raise DataError(f"{spec.source} holds no samples")
        self.shape = spec.augment.output_shape(self.dataset[0][0].shape)

    def make(self, batch: int, data: Array, labels: Array) -> None:
        """Fill `data` (N×C×H×W) and `labels` (N), both float32, with batch number `batch`."""
        for position in range(self.spec.batch_size):
            number = batch * self.spec.batch_size + position
            data[position], labels[position] = self._sample(number)

    def _sample(self, number: int) -> tuple[Array, int]:
        spec = self.spec
        index = sample_index(number, len(self.dataset), spec.seed, spec.shuffled)
        image, label = self.dataset[index]
        rng = sample_rng(spec.seed, *divmod(number, len(self.dataset)))  # independent of the batch size
        out = augment(image, spec.augment, spec.phase, rng)
        if out.shape != self.shape:
            raise DataError(f"{spec.source}: sample {index} has shape {out.shape} after augmentation, the first "
                            f"{self.shape}; set augment's crop")  # fmt: skip
        return out, label


class BatchLoader:
    """Returns batch after batch; worker processes compute them ahead. `next_batch` is the index of the next one."""

    def __init__(self, spec: LoaderSpec) -> None:
        from prototxt_gen.data.worker_processes import MakerSpec, WorkerPool

        self.spec = spec
        self.maker = BatchMaker(spec)
        self.next_batch = spec.start
        shapes = (self.shape, (spec.batch_size,))
        maker_spec = MakerSpec("prototxt_gen.data.batch_loader:BatchMaker", spec.to_json(), shapes)
        self._workers = WorkerPool(maker_spec, spec.workers) if spec.workers else None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of a batch's data, N×C×H×W."""
        return self.spec.batch_size, *self.maker.shape

    def batches_per_epoch(self) -> float:
        """Return the number of batches per epoch, not rounded."""
        return len(self.maker.dataset) / self.spec.batch_size

    def fill(self, data: Array, labels: Array) -> None:
        """Write the next batch into float32 arrays of shapes `shape` and (batch_size,)."""
        if self._workers is None:
            self.maker.make(self.next_batch, data, labels)
        else:
            self._workers.fill(self.next_batch, data, labels)
        self.next_batch += 1

    def next(self) -> tuple[Array, Array]:
        """Return the next batch as (data, labels), float32."""
        data, labels = np.empty(self.shape, np.float32), np.empty(self.spec.batch_size, np.float32)
        self.fill(data, labels)
        return data, labels

    def seek(self, batch: int) -> None:
        """Make batch number `batch`, counted from 0 at the start of training, the next one."""
        if batch < 0:
            raise DataError(f"data: batch {batch} is before the first, 0")
        self.next_batch = batch

    def close(self) -> None:
        """Stop the workers. The loader cannot be used afterwards."""
        if self._workers is not None:
            self._workers.close()
