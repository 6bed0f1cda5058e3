"""Layer type MultiBoxLoss (SSD): the training loss of the detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape, show
from prototxt_gen.layers.base import exactly
from prototxt_gen.layers.detection._ssd_parameters import MultiBoxLossParameter
from prototxt_gen.layers.detection.detection_output import check_priors, random_priors
from prototxt_gen.layers.example import Draw, Example, literal, normal
from prototxt_gen.layers.loss.softmax_with_loss import cross_entropy
from prototxt_gen.layers.loss_base import Loss, legacy_size, normalization_mode, normalizer, with_gradient_of
from prototxt_gen.schema.caffe_proto import LossParameter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prototxt_gen.layers.detection._multi_box_matching import TrainingTargets


def _truth_rows(*rows: Sequence[float]) -> Draw:
    """Ground truth rows: image, label, instance, xmin, ymin, xmax, ymax, difficult."""
    return literal(rows)


TRUTH = (
    (0, 1, 0, 0.1, 0.1, 0.5, 0.6, 0),
    (0, 2, 0, 0.3, 0.4, 0.9, 0.8, 0),
    (1, 2, 0, 0.2, 0.2, 0.7, 0.7, 1),
    (1, 1, 1, 0.5, 0.1, 0.8, 0.5, 0),
)
PRIORS = 20


def _example(
    name: str, params: str = "", *, boxes_per_class: bool = False, truth: Sequence[Sequence[float]] = TRUTH
) -> Example:
    shapes = (
        (2, PRIORS * 4 * (3 if boxes_per_class else 1)),
        (2, PRIORS * 3),
        (1, 2, PRIORS * 4),
        (1, 1, len(truth), 8),
    )
    text = params if "{" in params else f"multibox_loss_param {{ num_classes: 3 {params} }}"
    return Example(
        name, shapes, text, draws=(normal, normal, random_priors(PRIORS), _truth_rows(*truth)), gradients=False
    )


class MultiBoxLoss(Loss):
    """Match priors with ground truth, mine negatives, and add the location loss and the confidence loss.

    Source: weiliu89/caffe (branch ssd) src/caffe/layers/multibox_loss_layer.cpp, util/bbox_util.cpp.
    Shape: locations N×4P (4PC if share_location is false), scores N×PC, priors 1×2×4P, ground truth 1×1×G×8 → scalar. A
        row of ground truth is image, label, instance, xmin, ymin, xmax, ymax, difficult.
    Blobs: none.
    Differs: PyTorch has no such module. Of equal losses the first priors are mined; Caffe's choice depends on the C++
        library. With encode_variance_in_target, Caffe's gradient of a location is not divided by the variance; the same
        here.
    """

    type = "MultiBoxLoss"
    params = (MultiBoxLossParameter, LossParameter)
    bottoms = exactly(4)

    def check(self, layer: Layer, bottoms: Sequence[Shape]) -> None:
        p = layer.get(MultiBoxLossParameter)
        if p.num_classes < 1:
            raise layer.error("it needs a num_classes of at least 1")
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
            raise layer.error(f"its ground truth is {show(bottoms[3])}; it needs rows of 8 elements")

    def torch(self, layer: Layer, bottoms: Sequence[Shape]) -> nn.Module:
        from torch import nn

        p = layer.get(MultiBoxLossParameter)
        if p.mining_type != "NONE" and p.has("nms_param") and p.nms_param.nms_threshold > 0:
            raise UnsupportedError(
                f"layer {layer.name!r} ({layer.type}): mining with nms_param is not supported; without nms_param it is"
            )
        mode = normalization_mode(layer.get(LossParameter))
        propagated = (*layer.params.propagate_down, True, True)[:2] if layer.params.propagate_down else (True, True)

        class MultiBoxLoss(nn.Module):
            def forward(self, loc: Tensor, conf: Tensor, prior: Tensor, truth: Tensor) -> Tensor:
                from prototxt_gen.layers.detection._multi_box_matching import training_targets

                arrays = [bottom.detach().cpu().float().numpy() for bottom in (loc, conf, prior, truth)]
                targets = training_targets(layer, p, *arrays)
                total = loc.new_zeros(())
                if propagated[0]:
                    total = total + p.loc_weight * _location_loss(p, loc, targets)
                if propagated[1]:
                    total = total + _confidence_loss(p, conf, targets)
                matches = loc.new_tensor(len(targets.targets))
                return total / normalizer(mode, len(loc), targets.priors, matches)

        return MultiBoxLoss()

    examples = (
        _example("as SSD has it", "code_type: CENTER_SIZE"),
        _example("corners, Euclidean, bipartite", "code_type: CORNER loc_loss_type: L2 match_type: BIPARTITE"),
        _example("logistic", "conf_loss_type: LOGISTIC code_type: CORNER_SIZE loc_weight: 2"),
        _example("no mining", "mining_type: NONE code_type: CENTER_SIZE"),
        _example("no mining, logistic", "mining_type: NONE conf_loss_type: LOGISTIC"),
        _example(
            "boxes of each class",
            "mining_type: NONE share_location: false code_type: CENTER_SIZE",
            boxes_per_class=True,
        ),
        _example(
            "boxes of each class, matched by prediction",
            "mining_type: NONE share_location: false use_prior_for_matching: false code_type: CENTER_SIZE",
            boxes_per_class=True,
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


def _location_loss(p: MultiBoxLossParameter, loc: Tensor, targets: TrainingTargets) -> Tensor:
    """Return the summed location loss of the matched priors."""
    import torch
    from torch.nn import functional

    classes = 1 if p.share_location else p.num_classes
    image, prior, label = (torch.from_numpy(index).to(loc.device) for index in targets.locations.T)
    predicted = loc.reshape(len(loc), -1, classes, 4)[image, prior, label]
    encoded, inside, variances = (
        torch.from_numpy(array).to(loc.device) for array in (targets.targets, targets.inside, targets.variances)
    )
    if p.encode_variance_in_target:
        predicted, encoded = with_gradient_of(predicted / variances, predicted), encoded / variances
    predicted = torch.where(inside, predicted, encoded)
    if p.loc_loss_type == "L2":
        return (predicted - encoded).square().sum() / 2
    return functional.smooth_l1_loss(predicted, encoded, reduction="sum")


def _confidence_loss(p: MultiBoxLossParameter, conf: Tensor, targets: TrainingTargets) -> Tensor:
    """Return the summed confidence loss of the matched and the mined priors."""
    import torch
    from torch.nn import functional

    rows = conf.reshape(-1, p.num_classes)[torch.from_numpy(targets.rows).to(conf.device)]
    labels = torch.from_numpy(targets.labels).to(conf.device)
    if p.conf_loss_type == "SOFTMAX":
        return cross_entropy(rows, labels).sum()
    return functional.binary_cross_entropy_with_logits(rows, labels, reduction="sum")
