"""The messages of caffe.proto that belong to no single layer type. Source: BVLC/caffe src/caffe/proto/caffe.proto."""

from __future__ import annotations

from prototxt_gen.schema.message import (
    LAYER_FIELDS,
    Message,
    boolean,
    enum,
    float32,
    int32,
    int64,
    message,
    repeated,
    string,
    uint32,
)

ENGINES = ("DEFAULT", "CAFFE", "CUDNN")
"""The enum `engine` of many parameters: the implementation of the layer, which does not change its result."""


class BlobShape(Message):
    dim = repeated(int64(1))


class FillerParameter(Message):
    """Initial values of a learned blob. Source: include/caffe/filler.hpp."""

    type = string(1, "constant")
    value = float32(2)
    min = float32(3)
    max = float32(4, 1.0)
    mean = float32(5)
    std = float32(6, 1.0)
    sparse = int32(7, -1)
    variance_norm = enum(8, "FAN_IN", "FAN_OUT", "AVERAGE")


class NetState(Message):
    phase = enum(1, "TRAIN", "TEST", default="TEST")
    level = int32(2)
    stage = repeated(string(3))


class NetStateRule(Message):
    phase = enum(1, "TRAIN", "TEST")
    min_level = int32(2)
    max_level = int32(3)
    stage = repeated(string(4))
    not_stage = repeated(string(5))


class ParamSpec(Message):
    """Settings of one learned blob: name for sharing, learning rate and decay multipliers."""

    name = string(1)
    share_mode = enum(2, "STRICT", "PERMISSIVE")
    lr_mult = float32(3, 1.0)
    decay_mult = float32(4, 1.0)


NOT_LEARNED = ParamSpec(lr_mult=0, decay_mult=0)
"""`param` of blobs that the solver does not change: statistics, fixed kernels."""


class ResizeParameter(Message):
    """The SSD fork's resizing inside transform_param. Source: weiliu89/caffe src/caffe/proto/caffe.proto."""

    prob = float32(1, 1.0)
    resize_mode = enum(2, WARP=1, FIT_SMALL_SIZE=2, FIT_LARGE_SIZE_AND_PAD=3)
    height = uint32(3)
    width = uint32(4)
    height_scale = uint32(8)
    width_scale = uint32(9)
    pad_mode = enum(5, CONSTANT=1, MIRRORED=2, REPEAT_NEAREST=3)
    pad_value = repeated(float32(6))
    interp_mode = repeated(enum(7, LINEAR=1, AREA=2, NEAREST=3, CUBIC=4, LANCZOS4=5))


class SaltPepperParameter(Message):
    fraction = float32(1)
    value = repeated(float32(2))


class NoiseParameter(Message):
    """The SSD fork's disturbances inside transform_param. Source: weiliu89/caffe src/caffe/util/im_transforms.cpp."""

    prob = float32(1)
    hist_eq = boolean(2)
    inverse = boolean(3)
    decolorize = boolean(4)
    gauss_blur = boolean(5)
    jpeg = float32(6, -1.0)
    posterize = boolean(7)
    erode = boolean(8)
    saltpepper = boolean(9)
    saltpepper_param = message(10, SaltPepperParameter)
    clahe = boolean(11)
    convert_to_hsv = boolean(12)
    convert_to_lab = boolean(13)


class DistortionParameter(Message):
    """The SSD fork's changes of colour inside transform_param. Source: src/caffe/util/im_transforms.cpp there."""

    brightness_prob = float32(1)
    brightness_delta = float32(2)
    contrast_prob = float32(3)
    contrast_lower = float32(4)
    contrast_upper = float32(5)
    hue_prob = float32(6)
    hue_delta = float32(7)
    saturation_prob = float32(8)
    saturation_lower = float32(9)
    saturation_upper = float32(10)
    random_order_prob = float32(11)


class ExpansionParameter(Message):
    """The SSD fork's zooming out inside transform_param. Source: weiliu89/caffe src/caffe/data_transformer.cpp."""

    prob = float32(1, 1.0)
    max_expand_ratio = float32(2, 1.0)


class EmitConstraint(Message):
    """Which boxes the SSD fork keeps after cropping. Source: weiliu89/caffe src/caffe/util/bbox_util.cpp."""

    emit_type = enum(1, "CENTER", "MIN_OVERLAP")
    emit_overlap = float32(2)


class TransformationParameter(Message, field="transform_param", number=100):
    """Preprocessing of images in data layers; fields from resize_param on are SSD's.

    Source: src/caffe/data_transformer.cpp.
    """

    scale = float32(1, 1.0)
    mirror = boolean(2)
    crop_size = uint32(3)
    mean_file = string(4)
    mean_value = repeated(float32(5))
    force_color = boolean(6)
    force_gray = boolean(7)
    resize_param = message(8, ResizeParameter)
    noise_param = message(9, NoiseParameter)
    emit_constraint = message(10, EmitConstraint)
    crop_h = uint32(11)
    crop_w = uint32(12)
    distort_param = message(13, DistortionParameter)
    expand_param = message(14, ExpansionParameter)


class LossParameter(Message, field="loss_param", number=101):
    ignore_label = int32(1)
    normalization = enum(3, "FULL", "VALID", "BATCH_SIZE", "NONE", default="VALID")
    normalize = boolean(2)


class LayerParameter(Message):
    """The fields of a layer except name, type, bottoms and tops; the layer types add their `…_param` fields."""

    phase = enum(10, "TRAIN", "TEST")
    loss_weight = repeated(float32(5))
    param = repeated(message(6, ParamSpec))
    propagate_down = repeated(boolean(11))
    include = repeated(message(8, NetStateRule))
    exclude = repeated(message(9, NetStateRule))


LAYER_FIELDS.update(LayerParameter.fields)
LayerParameter.fields = LAYER_FIELDS


class NetParameter(Message):
    """The fields of a net except name, inputs and layers."""

    force_backward = boolean(5)
    state = message(6, NetState)
    debug_info = boolean(7)


class SolverParameter(Message):
    """The fields of a solver except inline nets, which are kept as text trees (see `prototxt_gen.net.solver`).

    Source: src/caffe/proto/caffe.proto.
    """

    net = string(24)
    train_net = string(1)
    test_net = repeated(string(2))
    train_state = message(26, NetState)
    test_state = repeated(message(27, NetState))
    test_iter = repeated(int32(3))
    test_interval = int32(4)
    test_compute_loss = boolean(19)
    test_initialization = boolean(32, True)
    base_lr = float32(5)
    display = int32(6)
    average_loss = int32(33, 1)
    max_iter = int32(7)
    iter_size = int32(36, 1)
    lr_policy = string(8)
    gamma = float32(9)
    power = float32(10)
    momentum = float32(11)
    weight_decay = float32(12)
    regularization_type = string(29, "L2")
    stepsize = int32(13)
    stepvalue = repeated(int32(34))
    clip_gradients = float32(35, -1.0)
    snapshot = int32(14)
    snapshot_prefix = string(15)
    snapshot_diff = boolean(16)
    snapshot_format = enum(37, "HDF5", "BINARYPROTO", default="BINARYPROTO")
    solver_mode = enum(17, "CPU", "GPU", default="GPU")
    device_id = int32(18)
    random_seed = int64(20, -1)
    type = string(40, "SGD")
    delta = float32(31, 1e-8)
    momentum2 = float32(39, 0.999)
    rms_decay = float32(38, 0.99)
    debug_info = boolean(23)
    snapshot_after_train = boolean(28, True)
    solver_type = enum(30, "SGD", "NESTEROV", "ADAGRAD", "RMSPROP", "ADADELTA", "ADAM")
    layer_wise_reduce = boolean(41, True)
    weights = repeated(string(42))
