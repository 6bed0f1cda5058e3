"""Layer type AnnotatedData (SSD): images and their boxes from a database."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.ir import Layer, Shape
from prototxt_gen.layers.base import Arity, LayerType, exactly
from prototxt_gen.layers.data._image_shape import image_shape
from prototxt_gen.layers.data.data import DataParameter
from prototxt_gen.schema.caffe_proto import TransformationParameter
from prototxt_gen.schema.message import Message, boolean, enum, float32, message, repeated, string, uint32


class Sampler(Message):
    min_scale = float32(1, 1.0)
    max_scale = float32(2, 1.0)
    min_aspect_ratio = float32(3, 1.0)
    max_aspect_ratio = float32(4, 1.0)


class SampleConstraint(Message):
    min_jaccard_overlap = float32(1)
    max_jaccard_overlap = float32(2)
    min_sample_coverage = float32(3)
    max_sample_coverage = float32(4)
    min_object_coverage = float32(5)
    max_object_coverage = float32(6)


class BatchSampler(Message):
    use_original_image = boolean(1, True)
    sampler = message(2, Sampler)
    sample_constraint = message(3, SampleConstraint)
    max_sample = uint32(4)
    max_trials = uint32(5, 100)


class AnnotatedDataParameter(Message, field="annotated_data_param", number=200):
    """The parameters of AnnotatedData in weiliu89/caffe, branch ssd."""

    batch_sampler = repeated(message(1, BatchSampler))
    label_map_file = string(2)
    anno_type = enum(3, "BBOX")


class AnnotatedData(LayerType):
    """Read images and the boxes in them from a database; sample and transform them.

    Source: weiliu89/caffe (branch ssd) src/caffe/layers/annotated_data_layer.cpp AnnotatedDataLayer::DataLayerSetUp.
    Shape: N×C×H×W, known as for Data; 1×1×G×8, where G is the number of boxes in the batch. G depends on the images;
        the declared shape has G = 1, the smallest number in Caffe.
    Blobs: none.
    Differs: its tops are inputs of the PyTorch module and of the ONNX model.
    """

    type = "AnnotatedData"
    params = (AnnotatedDataParameter, DataParameter, TransformationParameter)
    bottoms = exactly(0)
    tops = Arity(1, 2)
    data = True

    def shapes(self, layer: Layer, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        batch, transform = layer.get(DataParameter).batch_size, layer.get(TransformationParameter)
        if transform.has("resize_param") and transform.resize_param.resize_mode == "FIT_SMALL_SIZE" and batch != 1:
            raise layer.error(f"resize_mode FIT_SMALL_SIZE needs a batch_size of 1, not {batch}")
        return [image_shape(layer, batch), (1, 1, 1, 8)][: len(layer.tops)]
