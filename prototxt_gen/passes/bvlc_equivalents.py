"""Replacement of layer types that only forks have by equivalent ones that BVLC's Caffe (or more forks) have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prototxt_gen.analysis import Analysis, Row, analyse
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Value
from prototxt_gen.layers.detection._ssd_parameters import DetectionOutputParameter
from prototxt_gen.layers.detection.proposal import ProposalParameter, anchors
from prototxt_gen.layers.utility.flatten import FlattenParameter
from prototxt_gen.layers.utility.shuffle_channel import ShuffleChannelParameter
from prototxt_gen.layers.vision._convolution_window import ConvolutionParameter
from prototxt_gen.layers.vision.crop_center import margins
from prototxt_gen.net.lowering_checks import net_inputs
from prototxt_gen.passes.bn_split import split_batch_norms
from prototxt_gen.schema.caffe_proto import LayerParameter
from prototxt_gen.weights import Weights


def as_bvlc_layers(analysis: Analysis, weights: Weights) -> tuple[Analysis, Weights]:
    """Return net and weights with layers of forks replaced by more common layers that compute exactly the same.

    Replaced are BatchNorm with built-in scale and bias, SegNet's BN, depthwise convolutions, Axpy and CropCenter;
    ShuffleChannel, by layers of SSD's Caffe; and Upsample with a mask, by MaxUnPool of brocolli-caffe, whose Upsample
    ignores the mask. DetectionOutput loses the fields that make it write files. All other layers stay. Raises
    UnsupportedError for Proposal layers with anchors that our Caffe does not have.
    """
    net, weights = split_batch_norms(analysis.net, weights, merged=False)
    input_shapes = {value.blob: analysis.shapes[value] for value in net_inputs(analysis.net)}
    rows = analyse(net, input_shapes).rows
    replaced = [layer for row in rows for layer in EQUIVALENTS.get(row.layer.type, _unchanged)(row)]
    return analyse(net.relinked(replaced), input_shapes), weights


def _unchanged(row: Row) -> list[Layer]:
    return [row.layer]


def _depthwise(row: Row) -> list[Layer]:
    convolution = row.layer.get(ConvolutionParameter)
    params = row.layer.params.replace(convolution_param=convolution.replace(group=convolution.num_output))
    return [replace(row.layer, type="Convolution", params=params)]


def _axpy(row: Row) -> list[Layer]:
    a, x, y = row.layer.bottoms
    name = row.layer.name
    flat, scaled = Value(f"{name}/a"), Value(f"{name}/ax")
    squeeze = LayerParameter(flatten_param=FlattenParameter(axis=1))
    return [
        Layer(f"{name}/a", "Flatten", (a,), (flat,), squeeze),
        Layer(f"{name}/ax", "Scale", (x, flat), (scaled,), LayerParameter(scale_param={"axis": 0})),
        Layer(name, "Eltwise", (scaled, y), row.layer.tops),
    ]


def _crop_center(row: Row) -> list[Layer]:
    (bottom,), name = row.bottoms, row.layer.name
    if bottom is None or None in row.tops:
        return [row.layer]
    like = Value(f"{name}/like")
    dummy = LayerParameter(dummy_data_param={"shape": {"dim": row.tops[0]}})
    crop = LayerParameter(crop_param={"axis": 0, "offset": margins(row.layer, bottom)})
    return [
        Layer(f"{name}/like", "DummyData", (), (like,), dummy),
        Layer(name, "Crop", (*row.layer.bottoms, like), row.layer.tops, crop),
    ]


def _shuffle_channel(row: Row) -> list[Layer]:
    (bottom,), layer = row.bottoms, row.layer
    if bottom is None or len(bottom) != 4:
        return [layer]
    channels, groups = bottom[1], layer.get(ShuffleChannelParameter).group
    grouped, transposed = Value(f"{layer.name}/groups"), Value(f"{layer.name}/turned")
    split = {"shape": {"dim": (groups, channels // groups)}, "axis": 1, "num_axes": 1}
    join = {"shape": {"dim": (channels,)}, "axis": 1, "num_axes": 2}
    order = LayerParameter(permute_param={"order": (0, 2, 1, 3, 4)})
    return [
        Layer(grouped.blob, "Reshape", layer.bottoms, (grouped,), LayerParameter(reshape_param=split)),
        Layer(transposed.blob, "Permute", (grouped,), (transposed,), order),
        Layer(layer.name, "Reshape", (transposed,), layer.tops, LayerParameter(reshape_param=join)),
    ]


def _upsample(row: Row) -> list[Layer]:
    if len(row.layer.bottoms) == 1 or None in row.tops:
        return [row.layer]
    *_, height, width = row.tops[0] or ()
    params = LayerParameter(max_unpool_param={"dst_h": height, "dst_w": width})
    return [Layer(row.layer.name, "MaxUnPool", row.layer.bottoms, row.layer.tops, params)]


def _detection_output(row: Row) -> list[Layer]:
    params = row.layer.get(DetectionOutputParameter).replace(save_output_param=None, save_file=None)
    return [replace(row.layer, params=row.layer.params.replace(detection_output_param=params))]


def proposal_for_our_caffe(layer: Layer) -> Layer:
    """Return a Proposal layer without anchor_rule, a field that no Caffe has.

    Raises UnsupportedError if the Caffe that we build has other anchors.
    """
    p = layer.get(ProposalParameter)
    if p.anchor_rule != "SCALE_OVER_BASE" and anchors(p) != anchors(p, "SCALE_OVER_BASE"):
        raise UnsupportedError(
            f"layer {layer.name!r} (Proposal): this Caffe divides the sides of anchors by base_size, and the net "
            "is read with --anchor-rule scale"
        )
    return replace(layer, params=layer.params.replace(proposal_param=p.replace(anchor_rule=None)))


def _proposal(row: Row) -> list[Layer]:
    return [proposal_for_our_caffe(row.layer)]


EQUIVALENTS: dict[str, Callable[[Row], list[Layer]]] = {
    **dict.fromkeys(("ConvolutionDepthwise", "DepthwiseConvolution", "ConvolutionDepthWise"), _depthwise),
    "Axpy": _axpy,
    "CropCenter": _crop_center,
    "ShuffleChannel": _shuffle_channel,
    "DetectionOutput": _detection_output,
    "Upsample": _upsample,
    "Proposal": _proposal,
}
"""For each replaced layer type the function that returns the new layers; without known shapes, maybe the old layer."""
