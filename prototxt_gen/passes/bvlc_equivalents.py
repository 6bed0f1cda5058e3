"""Layers of forks as layers that BVLC's Caffe has too: the same net for a Caffe that lacks them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prototxt_gen.analysis import Analysis, Row, analyse
from prototxt_gen.ir import Layer, Value
from prototxt_gen.layers.detection._ssd_parameters import DetectionOutputParameter
from prototxt_gen.layers.utility.flatten import FlattenParameter
from prototxt_gen.layers.utility.shuffle_channel import ShuffleChannelParameter
from prototxt_gen.layers.vision._convolution_window import ConvolutionParameter
from prototxt_gen.layers.vision.crop_center import margins
from prototxt_gen.net.lowering_checks import sources
from prototxt_gen.passes.bn_split import split
from prototxt_gen.schema.caffe_proto import LayerParameter
from prototxt_gen.weights import Weights


def as_stock(analysis: Analysis, weights: Weights) -> tuple[Analysis, Weights]:
    """Return net and weights without layers that an exact sum of stock ones can replace; the others stay.

    Replaced are BatchNorm with a scale of its own, SegNet's BN, depthwise convolutions, Axpy, CropCenter and
    ShuffleChannel, the last by what SSD's Caffe has, and unpooling, by what brocolli-caffe has, where Upsample repeats
    pixels whether there is a mask or not; DetectionOutput writes no files, and asks for none.
    """
    net, weights = split(analysis.net, weights, merged=False)
    given = {value.blob: analysis.shapes[value] for value in sources(analysis.net)}
    rows = analyse(net, given).rows
    made = [layer for row in rows for layer in STOCK.get(row.layer.type, _same)(row)]
    return analyse(net.relinked(made), given), weights


def _same(row: Row) -> list[Layer]:
    return [row.layer]


def _depthwise(row: Row) -> list[Layer]:
    own = row.layer.get(ConvolutionParameter)
    params = row.layer.params.replace(convolution_param=own.replace(group=own.num_output))
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


def _shuffle(row: Row) -> list[Layer]:
    (bottom,), layer = row.bottoms, row.layer
    if bottom is None or len(bottom) != 4:
        return [layer]
    channels, groups = bottom[1], layer.get(ShuffleChannelParameter).group
    apart, turned = Value(f"{layer.name}/groups"), Value(f"{layer.name}/turned")
    cut = {"shape": {"dim": (groups, channels // groups)}, "axis": 1, "num_axes": 1}
    join = {"shape": {"dim": (channels,)}, "axis": 1, "num_axes": 2}
    order = LayerParameter(permute_param={"order": (0, 2, 1, 3, 4)})
    return [
        Layer(apart.blob, "Reshape", layer.bottoms, (apart,), LayerParameter(reshape_param=cut)),
        Layer(turned.blob, "Permute", (apart,), (turned,), order),
        Layer(layer.name, "Reshape", (turned,), layer.tops, LayerParameter(reshape_param=join)),
    ]


def _unpooled(row: Row) -> list[Layer]:
    if len(row.layer.bottoms) == 1 or None in row.tops:
        return [row.layer]
    *_, height, width = row.tops[0] or ()
    params = LayerParameter(max_unpool_param={"dst_h": height, "dst_w": width})
    return [Layer(row.layer.name, "MaxUnPool", row.layer.bottoms, row.layer.tops, params)]


def _no_files(row: Row) -> list[Layer]:
    own = row.layer.get(DetectionOutputParameter).replace(save_output_param=None, save_file=None)
    return [replace(row.layer, params=row.layer.params.replace(detection_output_param=own))]


STOCK: dict[str, Callable[[Row], list[Layer]]] = {
    **dict.fromkeys(("ConvolutionDepthwise", "DepthwiseConvolution", "ConvolutionDepthWise"), _depthwise),
    "Axpy": _axpy,
    "CropCenter": _crop_center,
    "ShuffleChannel": _shuffle,
    "DetectionOutput": _no_files,
    "Upsample": _unpooled,
}
"""What takes the place of a layer of each type; it may be the layer itself where shapes are missing."""
