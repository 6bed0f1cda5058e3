"""Layer type HDF5Output: blobs written to an HDF5 file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import LayerType, exactly, show_all
from prototxt_gen.schema.message import Message, string

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prototxt_gen.layers.onnx_graph import OnnxGraph


class HDF5OutputParameter(Message, field="hdf5_output_param", number=113):
    file_name = string(1)


class HDF5Output(LayerType):
    """Write the two bottoms to an HDF5 file, as data sets `data` and `label`.

    Source: src/caffe/layers/hdf5_output_layer.cpp HDF5OutputLayer::Forward_cpu, SaveBlobs.
    Shape: no tops; the bottoms have equal batch sizes and at most four axes.
    Blobs: none.
    Differs: conversion to PyTorch and ONNX is refused, because their models cannot write files.
    """

    type = "HDF5Output"
    params = (HDF5OutputParameter,)
    bottoms = exactly(2)
    tops = exactly(0)

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        for bottom in bottoms:
            if len(bottom) > 4:
                raise layer.error(f"its bottom {show(bottom)} has more than four axes")
        if (*bottoms[0], 1)[0] != (*bottoms[1], 1)[0]:
            raise layer.error(f"bottoms are {show_all(bottoms)}; it needs equal batch sizes")
        return []

    def _refusal(self, layer: Layer) -> UnsupportedError:
        file = layer.get(HDF5OutputParameter).file_name
        return UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): it writes {file!r}, which a converted net cannot; remove the layer"
        )

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        raise self._refusal(layer)

    def onnx(
        self, g: OnnxGraph, layer: Layer, bottoms: Sequence[str], blobs: Mapping[str, np.ndarray[Any, Any]]
    ) -> str | Sequence[str]:
        raise self._refusal(layer)
