"""Parameters of SSD's DetectionOutput and MultiBoxLoss.

Source: weiliu89/caffe (branch ssd) src/caffe/proto/caffe.proto.
"""

from __future__ import annotations

from typing import Any

from prototxt_gen.schema.caffe_proto import ResizeParameter
from prototxt_gen.schema.message import Message, boolean, enum, float32, int32, message, string, uint32


def code_type_field(number: int) -> Any:
    """Return an enum field of type PriorBoxParameter.CodeType."""
    return enum(number, "CORNER", "CENTER_SIZE", "CORNER_SIZE", first=1)


class NonMaximumSuppressionParameter(Message):
    nms_threshold = float32(1, 0.3)
    top_k = int32(2)
    eta = float32(3, 1.0)


class SaveOutputParameter(Message):
    """Where Caffe also writes the detections to files. These fields do not change the top."""

    output_directory = string(1)
    output_name_prefix = string(2)
    output_format = string(3)
    label_map_file = string(4)
    name_size_file = string(5)
    num_test_image = uint32(6)
    resize_param = message(7, ResizeParameter)


class DetectionOutputParameter(Message, field="detection_output_param", number=204):
    num_classes = uint32(1)
    share_location = boolean(2, True)
    background_label_id = int32(3)
    nms_param = message(4, NonMaximumSuppressionParameter)
    save_output_param = message(5, SaveOutputParameter)
    code_type = code_type_field(6)
    variance_encoded_in_target = boolean(8)
    keep_top_k = int32(7, -1)
    confidence_threshold = float32(9)
    visualize = boolean(10)
    visualize_threshold = float32(11)
    save_file = string(12)
    clip = boolean(1013)
    """Fields of OpenCV: whether boxes are cut to the image, and whether their coordinates are from 0 to 1."""
    normalized_bbox = boolean(1014, True)


class MultiBoxLossParameter(Message, field="multibox_loss_param", number=201):
    loc_loss_type = enum(1, "L2", "SMOOTH_L1", default="SMOOTH_L1")
    conf_loss_type = enum(2, "SOFTMAX", "LOGISTIC")
    loc_weight = float32(3, 1.0)
    num_classes = uint32(4)
    share_location = boolean(5, True)
    match_type = enum(6, "BIPARTITE", "PER_PREDICTION", default="PER_PREDICTION")
    overlap_threshold = float32(7, 0.5)
    use_prior_for_matching = boolean(8, True)
    background_label_id = uint32(9)
    use_difficult_gt = boolean(10, True)
    do_neg_mining = boolean(11)
    neg_pos_ratio = float32(12, 3.0)
    neg_overlap = float32(13, 0.5)
    code_type = code_type_field(14)
    encode_variance_in_target = boolean(16)
    map_object_to_agnostic = boolean(17)
    ignore_cross_boundary_bbox = boolean(18)
    bp_inside = boolean(19)
    mining_type = enum(20, "NONE", "MAX_NEGATIVE", "HARD_EXAMPLE", default="MAX_NEGATIVE")
    nms_param = message(21, NonMaximumSuppressionParameter)
    sample_size = int32(22, 64)
    use_prior_for_nms = boolean(23)
