"""A layer for Caffe of type "Python": data and label with augmentation, prepared in other processes.

    layer {
      name: "data" type: "Python" top: "data" top: "label"
      python_param {
        module: "prototxt_gen.data.caffe_layer" layer: "AugmentedData"
        param_str: '{"source": "train_lmdb", "batch_size": 64, "seed": 1, "augment": {"preset": "cifar"}}'
      }
    }

param_str is JSON with the fields of `LoaderSpec`; the layer's phase is the net's. Only Caffe imports this module.
**Source**: include/caffe/layers/python_layer.hpp. **Shape**: data N x C x crop x crop, label N.
"""

from __future__ import annotations

import json
from typing import Any

import caffe

from prototxt_gen.data.batch_loader import Loader, LoaderSpec


class AugmentedData(caffe.Layer):  # type: ignore[misc]
    """Two tops, data and label. `position` is the index of the next batch, `seek` sets it: that is the whole state.

    The position after iteration i of a training run is i x iter_size, so a resumed run needs
    `net.layers[k].seek(i * iter_size)` and sees the very batches it would have seen.
    """

    def setup(self, bottom: Any, top: Any) -> None:
        """Read param_str, open the data set and start the workers."""
        if len(bottom) or len(top) != 2:
            raise ValueError(f"AugmentedData takes no bottoms and 2 tops, not {len(bottom)} and {len(top)}")
        given = json.dumps({"phase": "TEST" if self.phase == caffe.TEST else "TRAIN", **_fields(self.param_str)})
        self.loader = Loader(LoaderSpec.from_json(given))

    def reshape(self, bottom: Any, top: Any) -> None:
        """Give the tops their shapes, which stay."""
        top[0].reshape(*self.loader.shape)
        top[1].reshape(self.loader.shape[0])

    def forward(self, bottom: Any, top: Any) -> None:
        """Write the next batch into the tops."""
        self.loader.fill(top[0].data, top[1].data)

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Do nothing: pictures have no gradient."""

    @property
    def position(self) -> int:
        """Return the index of the batch that comes next."""
        return self.loader.position

    def seek(self, batch_index: int) -> None:
        """Make batch `batch_index`, counted from 0 at the start of training, the next one."""
        self.loader.seek(batch_index)


def _fields(param_str: str) -> dict[str, Any]:
    LoaderSpec.from_json(param_str)  # names what is wrong with it, before anything is added
    return dict(json.loads(param_str))
