"""MultiBoxLoss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import exactly
from prototxt_gen.layers.detection._ssd_parameters import MultiBoxLossParameter
from prototxt_gen.layers.detection.detection_output import check_priors, some_priors
from prototxt_gen.layers.example import Draw, Example, literal, normal
from prototxt_gen.layers.loss.softmax_with_loss import cross_entropy
from prototxt_gen.layers.loss_base import Loss, legacy_size, normalization_mode, normalizer, with_gradient_of
from prototxt_gen.schema.caffe_proto import LossParameter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prototxt_gen.layers.detection._multi_box_matching import Chosen


def _boxes(*rows: Sequence[float]) -> Draw:
    """Ground truth: image, label, instance, xmin, ymin, xmax, ymax, difficult."""
    return literal(rows)


TRUTH = (
    (0, 1, 0, 0.1, 0.1, 0.5, 0.6, 0),
    (0, 2, 0, 0.3, 0.4, 0.9, 0.8, 0),
    (1, 2, 0, 0.2, 0.2, 0.7, 0.7, 1),
    (1, 1, 1, 0.5, 0.1, 0.8, 0.5, 0),
)
PRIORS = 20


def _example(name: str, params: str = "", *, own: bool = False, truth: Sequence[Sequence[float]] = TRUTH) -> Example:
    shapes = ((2, PRIORS * 4 * (3 if own else 1)), (2, PRIORS * 3), (1, 2, PRIORS * 4), (1, 1, len(truth), 8))
    text = params if "{" in params else f"multibox_loss_param {{ num_classes: 3 {params} }}"
    return Example(name, shapes, text, draws=(normal, normal, some_priors(PRIORS), _boxes(*truth)), gradients=False)


class MultiBoxLoss(Loss):
    """The loss of the SSD detector: matches priors with the ground truth, mines negatives, adds both losses.

    Source: weiliu89/caffe (branch ssd) src/caffe/layers/multibox_loss_layer.cpp, util/bbox_util.cpp.
    Shape: N×4P (4PC unless share_location), N×PC, 1×2×4P, 1×1×G×8 → scalar; a row of the fourth is image, label,
        instance, xmin, ymin, xmax, ymax, difficult.
    Blobs: none.
    Differs: PyTorch has none. Of equal losses the first priors are mined; Caffe leaves that to the C++ library's sort.
        With encode_variance_in_target Caffe's gradient of a location is not divided by its variance; nor is it here.
    """

    type = "MultiBoxLoss"
    params = (MultiBoxLossParameter, LossParameter)
    bottoms = exactly(4)

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        p = layer.get(MultiBoxLossParameter)
        if p.num_classes < 1:
            raise layer.error("it needs num_classes, at least 1")
        if p.has("do_neg_mining") and p.do_neg_mining != (p.mining_type != "NONE"):
            raise layer.error("do_neg_mining and mining_type contradict each other")
        if p.mining_type != "NONE" and not p.share_location:
            raise layer.error("mining needs share_location: true")
        if p.conf_loss_type == "SOFTMAX" and p.background_label_id >= p.num_classes:
            raise layer.error(f"background_label_id {p.background_label_id} is not one of {p.num_classes} classes")
        if p.map_object_to_agnostic and p.num_classes != 2:
            raise layer.error("map_object_to_agnostic needs num_classes: 2")
        if p.mining_type == "HARD_EXAMPLE" and p.sample_size < 1:
            raise layer.error("sample_size must be at least 1")
        check_priors(layer, bottoms, p.num_classes, p.share_location)
        if legacy_size(layer, bottoms[3], 3) != 8:
            raise layer.error(f"its ground truth is {show(bottoms[3])}; it needs rows of 8 numbers")

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p = layer.get(MultiBoxLossParameter)
        if p.mining_type != "NONE" and p.has("nms_param") and p.nms_param.nms_threshold > 0:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): mining with nms_param cannot be run here; without it, it can"
            )
        mode = normalization_mode(layer.get(LossParameter))
        down = (*layer.params.propagate_down, True, True)[:2] if layer.params.propagate_down else (True, True)

        class MultiBoxLoss(nn.Module):
            def forward(self, loc: Tensor, conf: Tensor, prior: Tensor, truth: Tensor) -> Tensor:
                from prototxt_gen.layers.detection._multi_box_matching import choose

                arrays = [bottom.detach().cpu().float().numpy() for bottom in (loc, conf, prior, truth)]
                chosen = choose(layer, p, *arrays)
                total = loc.new_zeros(())
                if down[0]:
                    total = total + p.loc_weight * _location_loss(p, loc, chosen)
                if down[1]:
                    total = total + _confidence_loss(p, conf, chosen)
                matches = loc.new_tensor(len(chosen.targets))
                return total / normalizer(mode, len(loc), chosen.priors, matches)

        return MultiBoxLoss()

    examples = (
        _example("as SSD has it", "code_type: CENTER_SIZE"),
        _example("corners, Euclidean, bipartite", "code_type: CORNER loc_loss_type: L2 match_type: BIPARTITE"),
        _example("logistic", "conf_loss_type: LOGISTIC code_type: CORNER_SIZE loc_weight: 2"),
        _example("no mining", "mining_type: NONE code_type: CENTER_SIZE"),
        _example("no mining, logistic", "mining_type: NONE conf_loss_type: LOGISTIC"),
        _example("boxes of each class", "mining_type: NONE share_location: false code_type: CENTER_SIZE", own=True),
        _example(
            "boxes of each class, matched by prediction",
            "mining_type: NONE share_location: false use_prior_for_matching: false code_type: CENTER_SIZE",
            own=True,
        ),
        _example("matched by prediction", "use_prior_for_matching: false code_type: CENTER_SIZE"),
        _example("hard examples", "mining_type: HARD_EXAMPLE sample_size: 5 code_type: CENTER_SIZE"),
        _example("few negatives", "neg_pos_ratio: 0.7 neg_overlap: 0.2 overlap_threshold: 0.3"),
        _example("without the difficult", "use_difficult_gt: false code_type: CENTER_SIZE"),
        _example("inside only", "bp_inside: true ignore_cross_boundary_bbox: true"),
        _example("inside only, by prediction", "bp_inside: true use_prior_for_matching: false code_type: CENTER_SIZE"),
        _example("variance in target", "encode_variance_in_target: true code_type: CENTER_SIZE"),
        _example("background 2", "background_label_id: 2", truth=[(0, 1, 0, 0.1, 0.1, 0.5, 0.6, 0)]),
        _example("no ground truth", truth=[(-1, -1, -1, -1, -1, -1, -1, -1)]),
        *(
            _example(
                f"normalization {mode}",
                f"loss_param {{ normalization: {mode} }} multibox_loss_param {{ num_classes: 3 }}",
            )
            for mode in ("FULL", "BATCH_SIZE", "NONE")
        ),
        _example(
            "locations only",
            "propagate_down: true propagate_down: false propagate_down: false propagate_down: false "
            "multibox_loss_param { num_classes: 3 }",
        ),
    )


def _location_loss(p: MultiBoxLossParameter, loc: Tensor, chosen: Chosen) -> Tensor:
    """Return the summed loss of the matched locations."""
    import torch
    from torch.nn import functional

    classes = 1 if p.share_location else p.num_classes
    image, prior, label = (torch.from_numpy(index).to(loc.device) for index in chosen.places.T)
    given = loc.reshape(len(loc), -1, classes, 4)[image, prior, label]
    wanted, inside, spread = (
        torch.from_numpy(array).to(loc.device) for array in (chosen.targets, chosen.inside, chosen.spread)
    )
    if p.encode_variance_in_target:
        given, wanted = with_gradient_of(given / spread, given), wanted / spread
    given = torch.where(inside, given, wanted)
    if p.loc_loss_type == "L2":
        return (given - wanted).square().sum() / 2
    return functional.smooth_l1_loss(given, wanted, reduction="sum")


def _confidence_loss(p: MultiBoxLossParameter, conf: Tensor, chosen: Chosen) -> Tensor:
    """Return the summed loss of the scores of the matched and the mined priors."""
    import torch
    from torch.nn import functional

    rows = conf.reshape(-1, p.num_classes)[torch.from_numpy(chosen.rows).to(conf.device)]
    labels = torch.from_numpy(chosen.labels).to(conf.device)
    if p.conf_loss_type == "SOFTMAX":
        return cross_entropy(rows, labels).sum()
    return functional.binary_cross_entropy_with_logits(rows, labels, reduction="sum")
