"""The Caffe layer `AugmentedData`, of type "Python": data with augmentation, and labels, from worker processes.

    layer {
      name: "data" type: "Python" top: "data" top: "label"
      python_param {
        module: "prototxt_gen.data.caffe_layer" layer: "AugmentedData"
        param_str: '{"source": "train_lmdb", "batch_size": 64, "seed": 1, "augment": {"preset": "cifar"}}'
      }
    }

param_str is JSON with the fields of `batch_loader.LoaderSpec`. Only Caffe imports this module.
**Source**: include/caffe/layers/python_layer.hpp. **Shape**: data N x C x crop x crop, label N.
"""

from __future__ import annotations

import json
from typing import Any

import caffe

from prototxt_gen.data.batch_loader import BatchLoader, LoaderSpec


class AugmentedData(caffe.Layer):  # type: ignore[misc]
    """Outputs data and label. Its only state is `next_batch`, the index of the next batch, which `seek` sets.

    After iteration i of a training run, next_batch is i x iter_size. A resumed run therefore calls
    `net.layers[k].seek(i * iter_size)` and then sees exactly the batches of an uninterrupted run.
    """

    def setup(self, bottom: Any, top: Any) -> None:
        """Read param_str, open the data set and start the workers."""
        if len(bottom) or len(top) != 2:
            raise ValueError(f"AugmentedData takes no bottoms and 2 tops, not {len(bottom)} and {len(top)}")
        spec_json = json.dumps({"phase": "TEST" if self.phase == caffe.TEST else "TRAIN", **_fields(self.param_str)})
        self.loader = BatchLoader(LoaderSpec.from_json(spec_json))

    def reshape(self, bottom: Any, top: Any) -> None:
        """Set the shapes of the tops, which are the same for all batches."""
        top[0].reshape(*self.loader.shape)
        top[1].reshape(self.loader.shape[0])

    def forward(self, bottom: Any, top: Any) -> None:
        """Copy the next batch into the tops."""
        self.loader.fill(top[0].data, top[1].data)

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Do nothing: data have no gradient."""

    @property
    def next_batch(self) -> int:
        """The index of the next batch, counted from 0 at the start of training."""
        return self.loader.next_batch

    @property
    def position(self) -> int:
        """The old name of `next_batch`."""
        return self.next_batch

    def seek(self, batch_index: int) -> None:
        """Make batch `batch_index`, counted from 0 at the start of training, the next one."""
        self.loader.seek(batch_index)


def _fields(param_str: str) -> dict[str, Any]:
    LoaderSpec.from_json(param_str)  # raises DataError for invalid fields, before `phase` is added
    return dict(json.loads(param_str))
