"""Matching and mining of MultiBoxLoss in NumPy: which priors are trained, and with which targets.

Source: weiliu89/caffe (branch ssd) src/caffe/util/bbox_util.cpp, multibox_loss_layer.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prototxt_gen.ir import Layer
from prototxt_gen.layers.detection import _boxes
from prototxt_gen.layers.detection._boxes import UNMATCHED, Floats, Ints

if TYPE_CHECKING:
    from prototxt_gen.layers.detection._ssd_parameters import MultiBoxLossParameter

Matches = dict[int, tuple[Ints, Floats]]
"""By location class (0 if all classes share locations): each prior's ground truth index and its greatest overlap."""
FLT_MIN = np.float32(2.0**-126)


@dataclass(frozen=True)
class TrainingTargets:
    """Targets of the two losses: for M matched locations and for R rows of scores."""

    priors: int
    """P, the number of priors."""
    locations: Ints
    """M×3: image, prior, location class."""
    targets: Floats
    """M×4: the encoded ground truth."""
    inside: Floats
    """M×4: whether a coordinate is trained."""
    variances: Floats
    """M×4: the variances of the matched priors."""
    rows: Ints
    """R rows of scores: image·P + prior."""
    labels: Floats
    """R int64 labels for SOFTMAX, R×C float32 targets for LOGISTIC."""


class _Image:
    """Predictions and ground truth of one image, its matches and its mined negatives."""

    def __init__(
        self,
        layer: Layer,
        p: MultiBoxLossParameter,
        loc: Floats,
        conf: Floats,
        priors: tuple[Floats, Floats],
        truth: tuple[Ints, Floats] | None,
    ) -> None:
        self.layer, self.p, self.loc, self.conf, self.truth = layer, p, loc, conf, truth
        self.priors, self.variances = priors
        self.matches: Matches = {} if truth is None else self._match(*truth)
        self.negatives: Ints = np.zeros(0, dtype="int64")
        if p.mining_type != "NONE" and truth is not None:
            self._mine()

    def decoded(self, label: int) -> Floats:
        """Return the predicted boxes of a location class, P×4."""
        variances = None if self.p.encode_variance_in_target else self.variances
        return _boxes.decode(self.p.code_type, self.loc[:, label], self.priors, variances)

    def _match(self, labels: Ints, truth: Floats) -> Matches:
        """Return the matches of each location class. Source: FindMatches."""
        p = self.p
        classes = [0] if p.share_location else [c for c in range(p.num_classes) if c != p.background_label_id]
        if p.use_prior_for_matching:
            indices, best = self._match_boxes(truth, self.priors)
            if p.share_location:
                return {0: (indices, best)}
            matched_label = np.where(indices >= 0, labels[indices], UNMATCHED)
            return {c: (np.where(matched_label == c, indices, UNMATCHED), best) for c in classes}
        matches: Matches = {}
        for c in classes:
            of_class = np.arange(len(labels)) if p.share_location else np.flatnonzero(labels == c)
            indices, best = self._match_boxes(truth[of_class], self.decoded(c))
            matches[c] = (np.where(indices >= 0, of_class[indices] if len(of_class) else indices, indices), best)
        return matches

    def _match_boxes(self, truth: Floats, candidates: Floats) -> tuple[Ints, Floats]:
        p = self.p
        threshold = p.overlap_threshold if p.match_type == "PER_PREDICTION" else None
        return _boxes.match(truth, candidates, threshold=threshold, ignore_crossing=p.ignore_cross_boundary_bbox)

    def _mine(self) -> None:
        """Select the negatives; with HARD_EXAMPLE also remove all matches but the hardest. Source: MineHardExamples."""
        p, (indices, best) = self.p, self.matches[0]
        loss = self._confidence_loss(indices)
        if p.mining_type == "MAX_NEGATIVE":
            eligible = np.flatnonzero((indices == UNMATCHED) & (best < np.float32(p.neg_overlap)))
            count = int(np.float32((indices >= 0).sum()) * np.float32(p.neg_pos_ratio))
        else:
            loss = loss + self._location_loss(indices)
            eligible, count = np.arange(len(indices)), p.sample_size
        hardest = eligible[_boxes.by_score(loss[eligible])][:count]
        self.negatives = np.sort(hardest[indices[hardest] == UNMATCHED])
        if p.mining_type == "HARD_EXAMPLE":
            easy = np.setdiff1d(np.flatnonzero(indices >= 0), hardest)
            indices[easy] = UNMATCHED

    def _confidence_loss(self, indices: Ints) -> Floats:
        """Return the confidence loss of each prior. Source: ComputeConfLoss."""
        assert self.truth is not None
        labels = np.where(indices >= 0, self.truth[0][indices], self.p.background_label_id)
        if self.p.conf_loss_type == "SOFTMAX":
            powers = np.exp(self.conf - self.conf.max(1, keepdims=True))
            probability = np.take_along_axis(powers, labels[:, None], 1)[:, 0] / powers.sum(1)
            return -np.log(np.maximum(probability, FLT_MIN))
        one_hot = np.arange(self.p.num_classes) == labels[:, None]
        each = np.log1p(np.exp(-np.abs(self.conf))) + self.conf * ((self.conf >= 0).astype("float32") - one_hot)
        return each.sum(1)

    def _location_loss(self, indices: Ints) -> Floats:
        """Return the location loss of each prior, 0 if it has no match. Source: ComputeLocLoss."""
        out = np.zeros(len(indices), dtype="float32")
        matched = np.flatnonzero(indices >= 0)
        targets, inside, variances = self.targets(0, matched)
        error = np.abs(np.where(inside, self.loc[matched, 0], targets) - targets)
        if self.p.encode_variance_in_target:
            error = error / variances
        smooth = np.where((error < 1) | (self.p.loc_loss_type == "L2"), error * error / 2, error - np.float32(0.5))
        out[matched] = smooth.sum(1)
        return out

    def targets(self, label: int, matched: Ints) -> tuple[Floats, Floats, Floats]:
        """Return the encoded ground truth, which coordinates are trained, and the variances; M×4 each.

        Source: EncodeLocPrediction.
        """
        assert self.truth is not None
        p, truth = self.p, self.truth[1][self.matches[label][0][matched]]
        priors, variances = self.priors[matched], self.variances[matched]
        if p.code_type == "CENTER_SIZE" and (_boxes.sizes(truth) <= 0).any():
            raise self.layer.error("a ground truth box has no width or no height")
        encoded = _boxes.encode(p.code_type, truth, priors, None if p.encode_variance_in_target else variances)
        boxes = priors if p.use_prior_for_matching else self.decoded(label)[matched]
        inside = (boxes >= 0) & (boxes <= 1) if p.bp_inside else np.ones(boxes.shape, dtype=bool)
        return encoded.astype("float32"), inside, variances


def training_targets(
    layer: Layer, p: MultiBoxLossParameter, loc: Floats, conf: Floats, prior: Floats, truth: Floats
) -> TrainingTargets:
    """Match priors with ground truth and mine negatives in all images; return the targets of the losses.

    Raises NetError if a prior has no area or a label is not valid.
    """
    priors = _boxes.split_priors(prior)
    count, classes = len(priors[0]), 1 if p.share_location else p.num_classes
    if p.code_type != "CORNER" and (_boxes.sizes(priors[0]) <= 0).any():
        raise layer.error("a prior has no width or no height")
    by_image = _boxes.ground_truth(truth, difficult=p.use_difficult_gt)
    _check_labels(layer, p, by_image)
    loc, conf = loc.reshape(len(loc), count, classes, 4), conf.reshape(len(conf), count, p.num_classes)
    images = [_Image(layer, p, loc[i], conf[i], priors, by_image.get(i)) for i in range(len(loc))]
    locations, (targets, inside, variances) = _locations(images)
    rows, labels = _mined_scores(p, images) if p.mining_type != "NONE" else _all_scores(p, images)
    return TrainingTargets(count, locations, targets, inside, variances, rows, labels)


def _check_labels(layer: Layer, p: MultiBoxLossParameter, by_image: dict[int, tuple[Ints, Floats]]) -> None:
    for labels, _ in by_image.values():
        for label in np.unique(labels).tolist():
            if label == p.background_label_id or not 0 <= label < p.num_classes:
                raise layer.error(f"its ground truth has label {label}, which is the background or not a class")


def _locations(images: list[_Image]) -> tuple[Ints, list[Floats]]:
    """Return the matched locations of all images, and their targets, inside flags and variances."""
    locations = [np.zeros((0, 3), dtype="int64")]
    targets = [(np.zeros((0, 4), "float32"), np.zeros((0, 4), bool), np.zeros((0, 4), "float32"))]
    for i, image in enumerate(images):
        for label, (indices, _) in image.matches.items():
            matched = np.flatnonzero(indices >= 0)
            locations.append(np.column_stack([np.full(len(matched), i), matched, np.full(len(matched), label)]))
            targets.append(image.targets(label, matched))
    return np.concatenate(locations), [np.concatenate(parts) for parts in zip(*targets, strict=True)]


def _label(p: MultiBoxLossParameter, image: _Image, indices: Ints) -> Ints:
    """Return the target label of each matched prior."""
    assert image.truth is not None
    if p.map_object_to_agnostic:
        return np.full(len(indices), p.background_label_id + 1)
    return image.truth[0][indices]


def _mined_scores(p: MultiBoxLossParameter, images: list[_Image]) -> tuple[Ints, Floats]:
    """Return the rows and the targets of the matched and the mined priors. Source: EncodeConfPrediction."""
    rows, labels = [np.zeros(0, dtype="int64")], [np.zeros(0, dtype="int64")]
    for i, image in enumerate(images):
        for indices, _ in image.matches.values():
            matched = np.flatnonzero(indices >= 0)
            rows += [i * len(image.priors) + matched, i * len(image.priors) + image.negatives]
            labels += [
                _label(p, image, indices[matched]),
                np.full(len(image.negatives), p.background_label_id),
            ]
    row, label = np.concatenate(rows), np.concatenate(labels)
    if p.conf_loss_type == "SOFTMAX":
        return row, label
    targets = np.full((len(row), p.num_classes), p.background_label_id, dtype="float32")
    valid = label < p.num_classes
    targets[np.flatnonzero(valid), label[valid]] = 1
    return row, targets


def _all_scores(p: MultiBoxLossParameter, images: list[_Image]) -> tuple[Ints, Floats]:
    """Return all rows and their targets, each label written where Caffe writes it.

    With LOGISTIC, Caffe writes it one column further to the right with each image.
    """
    count = len(images[0].priors)
    rows = np.arange(len(images) * count)
    softmax = p.conf_loss_type == "SOFTMAX"
    targets = np.full(len(rows) * (1 if softmax else p.num_classes), p.background_label_id, dtype="int64")
    for i, image in enumerate(images):
        for indices, _ in image.matches.values():
            matched = np.flatnonzero(indices >= 0)
            labels = _label(p, image, indices[matched])
            if softmax:
                targets[i * count + matched] = labels
            else:
                targets[i * count + matched * p.num_classes + labels] = 1
    return rows, targets if softmax else targets.reshape(-1, p.num_classes).astype("float32")
