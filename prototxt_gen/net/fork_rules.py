"""Layers that forks of Caffe compute in different ways from the same text: nets in which each says which."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from prototxt_gen.analysis import Analysis, Row, analyse
from prototxt_gen.common.errors import NetError
from prototxt_gen.ir import Layer, Net, Shape
from prototxt_gen.layers.detection.proposal import ANCHOR_RULES, ProposalParameter, anchors
from prototxt_gen.net import crop_alignment

_VALUES = {name: name.upper().replace("-", "_") for name in ANCHOR_RULES}
_UNCLEAR = "unclear"


@dataclass(frozen=True)
class ForkRules:
    """What the user says about layers that forks compute in different ways; None where the net must tell it.

    `crop`: "coordinates" or "offset", for Crop layers without crop_param. `anchors`: "scale" or "scale-over-base", for
    Proposal layers: the side of an anchor is side of the ratio·scale, or that divided by base_size.
    """

    crop: str | None = None
    anchors: str | None = None


NOTHING_SAID = ForkRules()


def with_fork_rules(
    net: Net, rules: ForkRules = NOTHING_SAID, input_shapes: Mapping[str, Shape] | None = None
) -> tuple[Net, list[str]]:
    """Return the net of one phase in which every such layer says in its own fields what it computes, and remarks.

    `input_shapes` gives shapes of inputs that are not in the file. Raises NetError if a layer can mean two things and
    neither the rules nor the net tell which.
    """
    net, remarks = crop_alignment.with_crop_offsets(net, rules.crop)
    if rules.anchors not in (None, *ANCHOR_RULES):
        raise NetError(f"there is no anchor rule {rules.anchors!r}; it is {' or '.join(ANCHOR_RULES)}")
    if not any(layer.type == "Proposal" for layer in net.layers):
        return net, remarks
    rows = analyse(net, input_shapes).rows
    meant = {id(row.layer): _anchor_rule(row, rules.anchors) for row in rows if row.layer.type == "Proposal"}
    for row in rows:
        if meant.get(id(row.layer)) == _UNCLEAR:
            where = f"{net.source}: " if net.source else ""
            raise NetError(f"{where}{row.layer.error(_two_scales(row.layer))}")
    layers = []
    for layer in net.layers:
        if rule := meant.get(id(layer)):
            proposal = layer.get(ProposalParameter).replace(anchor_rule=rule)
            layer = replace(layer, params=layer.params.replace(proposal_param=proposal))
        layers.append(layer)
    return net.relinked(layers), remarks


def unclear_layers(analysis: Analysis) -> list[tuple[Layer, str]]:
    """Return each layer that can mean two things and where nothing tells which, with a sentence on its meanings."""
    crops = crop_alignment.ambiguous_crops(analysis.net)
    found = [(layer, crop_alignment.two_meanings(offset)) for layer, offset in crops]
    proposals = [row for row in analysis.rows if row.layer.type == "Proposal"]
    return found + [(row.layer, _two_scales(row.layer)) for row in proposals if _anchor_rule(row, None) == _UNCLEAR]


def _anchor_rule(row: Row, rule: str | None) -> str | None:
    """Return the value of anchor_rule for a Proposal layer, _UNCLEAR, or None if it needs none.

    The C++ layers that divide by base_size read four numbers of image info; an image info of three belongs to those
    that do not (Intel's, OpenVINO's, OpenCV's).
    """
    p = row.layer.get(ProposalParameter)
    if p.has("anchor_rule"):
        return p.anchor_rule
    if rule is not None:
        return _VALUES[rule]
    image = row.bottoms[2] if len(row.bottoms) == 3 else None
    if image is not None and math.prod(image[1:] if len(image) > 1 else image) == 3:
        return _VALUES["scale"]
    if not p.ratio or not p.scale or p.base_size < 1 or len({anchors(p, each) for each in _VALUES.values()}) == 1:
        return None
    return _UNCLEAR


def _two_scales(layer: Layer) -> str:
    base_size = layer.get(ProposalParameter).base_size
    return (
        "the sides of its anchors are multiplied by scale in Intel's Caffe, OpenVINO and OpenCV, and by "
        f"scale/base_size (scale/{base_size}) in happynear's and brocolli's Caffe; give --anchor-rule scale or "
        "--anchor-rule scale-over-base"
    )
