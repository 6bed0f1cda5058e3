"""Reading a net and its weights with keyword arguments, as all public functions of `converters` do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.common.net_with_weights import NetLike, NetWithWeights, WeightsLike
    from converters.common.preprocessing import Preprocessing


def read_net_with_weights(
    net: NetLike,
    weights: WeightsLike,
    *,
    phase: str = "TEST",
    stages: Sequence[str] = (),
    level: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    input_size: tuple[int, ...] = (),
    dialect: str | None = None,
    bn_statistic: str | None = None,
    ignore_fields: Collection[str] = (),
    crop_rule: str | None = None,
    anchor_rule: str | None = None,
    preprocessing: Preprocessing | None = None,
) -> NetWithWeights:
    """Read a net and its weights for conversion.

    A train_val net becomes its deploy net: data layers become inputs, losses and metrics are removed.

    Args:
        net: Path of a prototxt, or a Net.
        weights: Path of a .caffemodel or .h5, or Weights. None for a net without learned blobs.
        phase: "TEST" or "TRAIN". Selects layers by their include and exclude rules, as do `stages` and `level`.
        stages: Stages of the net, in addition to those in its `state`.
        level: Level of the net.
        shapes: Shapes of inputs and data layers, N×C×H×W, by blob name. Default: those in the prototxt.
        input_size: Height and width in pixels for the image input. Pooling over the whole map stays global.
        dialect: Caffe fork that wrote the weights. Default: detected.
        bn_statistic: Content of the fourth blob of BN layers, "inverse_std" or "variance". Default: as in the fork.
        ignore_fields: Names of unknown fields that do not change the result.
        crop_rule: Where Crop layers without crop_param cut: "coordinates", where the coordinates of their bottoms
            agree, as in the Caffe of HED and the first FCNs; or "offset", at 0, as in BVLC's Caffe. Default: as the net
            tells; an error if it can mean both.
        anchor_rule: What the sides of the anchors of Proposal layers are multiplied by: "scale", as in Intel's Caffe,
            OpenVINO and OpenCV; or "scale-over-base", as in happynear's Caffe. Default: as the net tells, or an error.
        preprocessing: Preprocessing of the input images. Default: that of the net's data layer.

    Raises:
        PrototxtError: The prototxt cannot be parsed.
        NetError: The net is invalid; UnsupportedError if it has unknown layer types or fields. All problems are listed.
        WeightsError: The weights cannot be read or do not fit the net.
    """
    from dataclasses import replace

    from converters.common.net_with_weights import ReadOptions
    from converters.common.net_with_weights import read_net_with_weights as read
    from prototxt_gen.net.fork_rules import ForkRules

    options = ReadOptions(
        phase,
        tuple(stages),
        level,
        dict(shapes or {}),
        tuple(input_size),
        dialect,
        bn_statistic,
        tuple(ignore_fields),
        ForkRules(crop_rule, anchor_rule),
    )
    model = read(net, weights, options)
    return model if preprocessing is None else replace(model, preprocessing=preprocessing)
