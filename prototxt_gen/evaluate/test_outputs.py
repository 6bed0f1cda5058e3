"""The mean outputs of a net in the TEST phase on its own data, as `caffe test` prints them; for any net.

Source: tools/caffe.cpp test().
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prototxt_gen import weights
from prototxt_gen.analysis import analyse
from prototxt_gen.common.errors import NetError, PrototxtGenError
from prototxt_gen.common.optional_packages import need
from prototxt_gen.ir import Layer, Net
from prototxt_gen.net.lowering_checks import analyse_for_conversion
from prototxt_gen.net.phase_rules import is_loss_type, is_source_layer
from prototxt_gen.net.solver import Solver
from prototxt_gen.schema.caffe_proto import SolverParameter

if TYPE_CHECKING:
    from converters.common.net_with_weights import ReadOptions
    from prototxt_gen.train.input_feed import InputFeed

_CLASSIFICATION_LOSSES = frozenset({"SoftmaxWithLoss", "MultinomialLogisticLoss", "HingeLoss", "InfogainLoss"})
"""Losses of one class for each image."""
_CAFFES_ITERATIONS = 50
"""The default of `caffe test -iterations`, for nets whose data have no end."""


@dataclass(frozen=True)
class TestOutputs:
    """The means of all elements of a net's outputs, by name, over `batches` batches of `batch_size`."""

    __test__ = False  # the class name would make pytest collect it

    outputs: Mapping[str, float]
    batches: int
    batch_size: int


def is_classifier(net: Net) -> bool:
    """Return whether a net of one phase, with a data layer, gives each image scores of classes, compared with a label.

    It does if an Accuracy, or a loss of classes, compares a label directly from the data layer with one row of scores
    for each image. A net with scores for each pixel is none. A net without losses and metrics may be one.
    """
    measures = [layer for layer in net.layers if layer.type == "Accuracy" or is_loss_type(layer)]
    of_labels = [layer for layer in measures if _reads_class_labels(layer, net)]
    return not measures or any(count <= 1 for count in _scores_per_image(net, of_labels))


def _reads_class_labels(layer: Layer, net: Net) -> bool:
    sources = {top for source in net.layers if is_source_layer(source) for top in source.tops[1:]}
    is_known = layer.type == "Accuracy" or layer.type in _CLASSIFICATION_LOSSES
    return is_known and len(layer.bottoms) > 1 and layer.bottoms[1] in sources


def _scores_per_image(net: Net, measures: Sequence[Layer]) -> list[int]:
    """Return how many rows of scores each layer reads for an image; 0 if the shape of the scores is not known."""
    if not measures:
        return []
    from prototxt_gen.train.data_shapes import data_shapes

    try:
        shapes = analyse(net, data_shapes(net, Solver(SolverParameter(), source=net.source).locate)).shapes
    except PrototxtGenError:
        shapes = {}  # what is wrong with the data is reported when they are read
    return [math.prod(shape[2:]) if (shape := shapes.get(layer.bottoms[0])) else 0 for layer in measures]


def run_test_outputs(
    net: Net, weights_file: Path, options: ReadOptions, iterations: int | None = None, gpu: int | None = None
) -> TestOutputs:
    """Run a net, with its data layers, in the TEST phase and return the means of its outputs.

    `iterations` is the number of batches, by default as many as the data set has complete ones. Raises NetError if no
    output is small enough to be reported.
    """
    need("torch")
    import torch

    from prototxt_gen.runtime.torch_net import TorchNet
    from prototxt_gen.train.device import Hardware
    from prototxt_gen.train.distributed import Processes
    from prototxt_gen.train.input_feed import FeedContext, InputFeed
    from prototxt_gen.train.test_phase import TestNet
    from prototxt_gen.train.total_loss import with_loss_tops

    feed = InputFeed(net, FeedContext("TEST", seed=1, solver=net.source))
    analysis = analyse_for_conversion(with_loss_tops(feed.net))
    loaded = weights.read(weights_file, analysis, options.dialect, options.bn_statistic)
    hardware = Hardware(torch.device("cpu" if gpu is None else f"cuda:{gpu}"))
    module = TorchNet(analysis, loaded)
    hardware.move_to_device(module)
    count = iterations or _batches_of_one_pass(feed)
    test = TestNet(module, feed, count, hardware)
    if not test.outputs:
        raise NetError(f"{net.source or net.name}: none of its TEST outputs is small enough to be printed")
    return TestOutputs(test.run(0, Processes(hardware.device)), count, next(iter(feed.shapes.values()))[0])


def _batches_of_one_pass(feed: InputFeed) -> int:
    """Return the number of complete batches in the smallest data set of a net."""
    counts = [len(s.batches) // s.shapes[0][0] for s in feed.sources if isinstance(s.batches, Sized)]
    return max(1, min(counts, default=_CAFFES_ITERATIONS))
