"""Layer type VideoData (SSD): frames of a video or a camera."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, exactly
from prototxt_gen.layers.data._image_shape import image_shape
from prototxt_gen.layers.data.data import DataParameter
from prototxt_gen.schema.caffe_proto import TransformationParameter
from prototxt_gen.schema.message import Message, enum, int32, string, uint32


class VideoDataParameter(Message, field="video_data_param", number=207):
    """The parameters in weiliu89/caffe, branch ssd. VideoData of yjxiong/caffe has other fields and is refused."""

    video_type = enum(1, "WEBCAM", "VIDEO")
    device_id = int32(2)
    video_file = string(3)
    skip_frames = uint32(4)


class VideoData(LayerType):
    """Read frames from a video file or a camera; transform them.

    Source: weiliu89/caffe (branch ssd) src/caffe/layers/video_data_layer.cpp VideoDataLayer::DataLayerSetUp.
    Shape: N×3×H×W and N labels. H×W is known if transform_param has a crop or resize_param.
    Blobs: none.
    Differs: its tops are inputs of the PyTorch module and of the ONNX model.
    """

    type = "VideoData"
    params = (VideoDataParameter, DataParameter, TransformationParameter)
    bottoms = exactly(0)
    tops = Arity(1, 2)
    data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        p = layer.get(VideoDataParameter)
        if p.video_type == "VIDEO" and not p.has("video_file"):
            raise layer.error("video_type VIDEO needs video_file")
        batch = layer.get(DataParameter).batch_size
        return [image_shape(layer, batch, channels=3), (batch,)][: len(layer.tops)]
