"""Writing all layers as PyTorch source, and finding those whose source depends on the batch or the image size.

Each layer is written for other input shapes too. If its source differs, that size is fixed in model.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from converters.common.other_sizes import (
    at_other_image_sizes,
    layers_with_other_blob_shapes,
    with_larger_batch,
    with_larger_images,
)
from converters.pytorch_export.layer_source import LayerSource, layer_source
from converters.pytorch_export.nn_constructors import nn_constructor
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.ir import Shape, Value
from prototxt_gen.net.lowering_checks import lower_all
from prototxt_gen.runtime.torch_net import LoweredLayer, TorchNet

_ALL_AXES = (0, 1, 2, 3, 4)
_BATCH_AXIS = (0,)
_EXTRA_PIXELS = (32, 64)
"""Pixels added to height and width for the first other image size."""


@dataclass
class FixedSizes:
    """Sizes that are fixed in a model.py.

    `dependent_layers`: the layers whose source depends on a size, by "batch" and "size" (of the image). A key without
    layers means that the net itself does not accept another size.
    """

    dependent_layers: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_batch_fixed(self) -> bool:
        return "batch" in self.dependent_layers

    @property
    def is_image_size_fixed(self) -> bool:
        return "size" in self.dependent_layers

    @property
    def remarks(self) -> list[str]:
        """Sentences for the user, each naming the first layer that depends on a size."""
        found = self.dependent_layers.items()
        return [f"the {kind} is fixed: {layer_names[0]} depends on it" for kind, layer_names in found if layer_names]


def write_all_layers(analysis: Analysis, net: TorchNet) -> tuple[list[LayerSource], FixedSizes]:
    """Return the source of every layer, and the sizes that are fixed in it.

    Raises UnsupportedError, which lists all layers that cannot be written as PyTorch source.
    """
    writer = _LayerWriter(analysis, net)
    rows = tuple(row for row in analysis.rows if id(row.layer) in writer.steps)
    return lower_all(Analysis(analysis.net, rows, analysis.shapes), writer.write, "a model.py"), writer.fixed


class _LayerWriter:
    """Writes layers; `others`: the net analysed at other shapes, by "batch" and "size"."""

    def __init__(self, analysis: Analysis, net: TorchNet) -> None:
        self.shapes = analysis.shapes
        self.steps = {id(step.layer): step for step in net.lowered_layers}
        self.others = {"batch": _valid([with_larger_batch(analysis)]), "size": _at_other_sizes(analysis)}
        self.fixed = FixedSizes()

    def write(self, row: Row) -> LayerSource:
        """Return the source of a layer that depends on as few sizes as possible, and record those it depends on."""
        step = self.steps[id(row.layer)]
        for axes in (_ALL_AXES, _BATCH_AXIS):
            dependent = [kind for kind, others in self.others.items() if not self._is_same(step, others, axes)]
            if not dependent or axes == _BATCH_AXIS:
                break
        self._record_dependence(step, dependent)
        return layer_source(step.layer, step.module, step.path, _bottom_shapes(self.shapes, step), axes)

    def _is_same(self, step: LoweredLayer, others: Sequence[Analysis], axes: tuple[int, ...]) -> bool:
        """Whether the layer's source is the same at the other shapes, apart from its learned numbers."""
        bottoms = _bottom_shapes(self.shapes, step)
        other_bottoms = {shapes for other in others if (shapes := _bottom_shapes(other.shapes, step)) != bottoms}
        try:
            key = _source_key(step, bottoms, axes) if other_bottoms else None
            return bool(others) and all(_source_key(step, shapes, axes) == key for shapes in other_bottoms)
        except (PrototxtGenError, RuntimeError):
            return False

    def _record_dependence(self, step: LoweredLayer, kinds: Sequence[str]) -> None:
        for kind in kinds:
            layer_names = self.fixed.dependent_layers.setdefault(kind, [])
            if self.others[kind]:
                layer_names.append(f"layer {step.layer.name!r} ({step.layer.type})")


def _bottom_shapes(shapes: Mapping[Value, Shape], step: LoweredLayer) -> tuple[Shape, ...]:
    return tuple(shapes[value] for value in step.layer.bottoms)


def _source_key(step: LoweredLayer, bottoms: Sequence[Shape], axes: tuple[int, ...]) -> object:
    """Return an object that is equal for equal source. Modules of torch.nn are made without memory for it."""
    with torch.device("meta"):
        module = step.layer_type.torch(step.layer, bottoms)
        constructor = nn_constructor(module, len(bottoms[0]) if bottoms else 0)
    if constructor is not None:
        return constructor
    module = step.layer_type.torch(step.layer, bottoms)
    return layer_source(step.layer, module, step.path, bottoms, axes).comparison_key()


def _at_other_sizes(analysis: Analysis) -> list[Analysis]:
    """Return the net at other image sizes; none if it does not accept much larger images.

    If learned blobs depend on the size, one size is enough to find that out.
    """
    larger = _valid([with_larger_images(analysis, *_EXTRA_PIXELS)])
    if not larger or layers_with_other_blob_shapes(analysis, larger[0]):
        return larger
    return [*larger, *at_other_image_sizes(analysis)]


def _valid(analyses: Sequence[Analysis]) -> list[Analysis]:
    return [analysis for analysis in analyses if analysis.complete]
