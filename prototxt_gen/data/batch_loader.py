"""Batches as a function of (seed, batch index), prepared ahead in other processes.

Nothing is remembered between batches: sample n of the run (n = batch index x batch size + place) is the n-th of a
row of epochs, each a permutation drawn from (seed, epoch), and its augmentation is drawn from (seed, n). So the state
of the data is one number, the index of the next batch, and any number of workers gives the same pixels.
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
from prototxt_gen.data.augmentation import Augment, augment, rng_for
from prototxt_gen.data.data_errors import DataError
from prototxt_gen.data.data_set_reader import Dataset, open_dataset

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LoaderSpec:
    """What to load. `source`, `kind`, `root`, `split` are `open_dataset`'s; `workers` 0 prepares in this process.

    `shuffle` None shuffles in phase "TRAIN" only; `start` is the index of the first batch.
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
        """Return whether epochs are permuted."""
        return self.phase == "TRAIN" if self.shuffle is None else self.shuffle

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> LoaderSpec:
        """Build from a mapping as JSON gives it; unknown and missing names are errors."""
        known = [entry.name for entry in fields(cls)]
        for name in given:
            if name not in known:
                raise DataError(f"data: no field {name!r}{nearest(name, known)}")
        for name in ("source", "batch_size"):
            if name not in given:
                raise DataError(f"data: {name} is missing")
        return cls(**{**given, "augment": Augment.from_mapping(given.get("augment", {}))})

    def to_json(self) -> str:
        """Return a text that `from_json` turns back into this."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LoaderSpec:
        """Read a JSON object of the fields (a Caffe layer's param_str)."""
        try:
            given = json.loads(text or "{}")
        except ValueError as error:
            raise DataError(f"param_str is not JSON: {error}") from error
        if not isinstance(given, dict):
            raise DataError('param_str must be a JSON object such as {"source": "train_lmdb", "batch_size": 64}')
        return cls.from_mapping(given)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> Array:
    return np.random.default_rng((seed, epoch, 0, 2)).permutation(size)


def sample_at(number: int, size: int, seed: int, shuffled: bool) -> int:
    """Return which sample of a set of `size` is the `number`-th of the run; every epoch holds each one once."""
    epoch, place = divmod(number, size)
    return int(_permutation(seed, epoch, size)[place]) if shuffled else place


class BatchMaker:
    """Makes any batch of a spec, in the process that calls it. The spec may be given as JSON."""

    def __init__(self, given: LoaderSpec | str) -> None:
        self.spec = spec = LoaderSpec.from_json(given) if isinstance(given, str) else given
        self.dataset: Dataset = open_dataset(spec.source, spec.kind, color=spec.color, root=spec.root, split=spec.split)
        if not len(self.dataset):
            raise DataError(f"{spec.source} holds no samples")
        self.shape = spec.augment.output_shape(self.dataset[0][0].shape)

    def make(self, batch: int, data: Array, labels: Array) -> None:
        """Fill `data` (batch_size x channels x height x width) and `labels` (batch_size), both float32."""
        for place in range(self.spec.batch_size):
            number = batch * self.spec.batch_size + place
            data[place], labels[place] = self._sample(number)

    def _sample(self, number: int) -> tuple[Array, int]:
        spec = self.spec
        index = sample_at(number, len(self.dataset), spec.seed, spec.shuffled)
        image, label = self.dataset[index]
        rng = rng_for(spec.seed, *divmod(number, len(self.dataset)))  # whatever the batch size
        out = augment(image, spec.augment, spec.phase, rng)
        if out.shape != self.shape:
            raise DataError(f"{spec.source}: sample {index} comes out as {out.shape}, the first as {self.shape}; "
                            f"set augment's crop")  # fmt: skip
        return out, label


class Loader:
    """Gives batch after batch, `workers` of them being prepared ahead. `position` is the index of the next one."""

    def __init__(self, spec: LoaderSpec) -> None:
        from prototxt_gen.data.worker_processes import Crew, Recipe

        self.spec = spec
        self.maker = BatchMaker(spec)
        self.position = spec.start
        shapes = (self.shape, (spec.batch_size,))
        recipe = Recipe("prototxt_gen.data.batch_loader:BatchMaker", spec.to_json(), shapes)
        self._crew = Crew(recipe, spec.workers) if spec.workers else None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape of a batch's data."""
        return self.spec.batch_size, *self.maker.shape

    def batches_per_epoch(self) -> float:
        """Return how many batches go once through the data."""
        return len(self.maker.dataset) / self.spec.batch_size

    def fill(self, data: Array, labels: Array) -> None:
        """Write the next batch into arrays of `shape` and (batch_size,), float32."""
        if self._crew is None:
            self.maker.make(self.position, data, labels)
        else:
            self._crew.fill(self.position, data, labels)
        self.position += 1

    def next(self) -> tuple[Array, Array]:
        """Return the next batch as (data, labels), float32."""
        data, labels = np.empty(self.shape, np.float32), np.empty(self.spec.batch_size, np.float32)
        self.fill(data, labels)
        return data, labels

    def seek(self, batch: int) -> None:
        """Go on with batch number `batch`, counted from 0 at the start of training."""
        if batch < 0:
            raise DataError(f"data: batch {batch} is before the first, 0")
        self.position = batch

    def close(self) -> None:
        """End the workers; the loader cannot be used afterwards."""
        if self._crew is not None:
            self._crew.close()
