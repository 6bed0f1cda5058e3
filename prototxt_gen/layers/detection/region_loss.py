"""Layer type RegionLoss (YOLO v2): only its parameters and shape are supported."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, exactly
from prototxt_gen.schema.message import Message, float32, repeated, string, uint32


class RegionLossParameter(Message, field="region_loss_param", number=209):
    side = uint32(1, 13)
    num_class = uint32(2, 20)
    bias_match = uint32(3, 1)
    coords = uint32(4, 4)
    num = uint32(5, 5)
    softmax = uint32(6, 1)
    jitter = float32(7, 0.2)
    rescore = uint32(8, 1)
    object_scale = float32(9, 1.0)
    class_scale = float32(10, 1.0)
    noobject_scale = float32(11, 0.5)
    coord_scale = float32(12, 5.0)
    absolute = uint32(13, 1)
    thresh = float32(14, 0.2)
    random = uint32(15, 1)
    biases = repeated(float32(16))
    softmax_tree = string(17)
    class_map = string(18)


class RegionLoss(LayerType):
    """Compute the loss of YOLO v2; here only its parameters and its shape are known.

    Source: intel/caffe src/caffe/layers/region_loss_layer.cpp.
    Shape: N×(num·(coords + 1 + num_class))×H×W, ground truth N×(5·30) → scalar.
    Blobs: none.
    Differs: PyTorch and ONNX have no such operator, and it cannot be run here.
    """

    type = "RegionLoss"
    params = (RegionLossParameter,)
    bottoms = exactly(2)
    tops = Arity(0, 1)
    loss = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [()][: len(layer.tops)]
