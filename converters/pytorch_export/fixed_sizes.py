"""Which sizes of its bottoms a layer's source goes by: found by writing it for other sizes and comparing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from converters.common.other_sizes import more_images, other_sizes, relearned, resized
from converters.pytorch_export.layer_source import Piece, piece
from converters.pytorch_export.nn_constructors import stock_expression
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.ir import Shape, Value
from prototxt_gen.net.lowering_checks import lower_all
from prototxt_gen.runtime.torch_net import LoweredLayer, TorchNet

_EVERY_AXIS = (0, 1, 2, 3, 4)
_BATCH_AXIS = (0,)
_MORE = (32, 64)
"""How much higher and wider the other images are."""


@dataclass
class Fixed:
    """The layers whose source goes by the batch, and by the size of the image. The net as a whole may, without one."""

    by: dict[str, list[str]] = field(default_factory=dict)

    @property
    def batch(self) -> bool:
        return "batch" in self.by

    @property
    def size(self) -> bool:
        return "size" in self.by

    @property
    def remarks(self) -> list[str]:
        return [f"the {kind} is fixed: {who[0]} goes by it" for kind, who in self.by.items() if who]


def all_pieces(analysis: Analysis, net: TorchNet) -> tuple[list[Piece], Fixed]:
    """Write every layer. One UnsupportedError lists those that cannot be."""
    writer = _Pieces(analysis, net)
    body = Analysis(analysis.net, tuple(row for row in analysis.rows if id(row.layer) in writer.steps), analysis.shapes)
    return lower_all(body, writer.write, "a model.py"), writer.fixed


class _Pieces:
    def __init__(self, analysis: Analysis, net: TorchNet) -> None:
        self.shapes = analysis.shapes
        self.steps = {id(step.layer): step for step in net.lowered_layers}
        self.others = {"batch": _taken([more_images(analysis)]), "size": _sizes(analysis)}
        self.fixed = Fixed()

    def write(self, row: Row) -> Piece:
        step = self.steps[id(row.layer)]
        for axes in (_EVERY_AXIS, _BATCH_AXIS):
            differing = [kind for kind, others in self.others.items() if not self._same(step, others, axes)]
            if not differing or axes == _BATCH_AXIS:
                break
        self._note(step, differing)
        return piece(step.layer, step.module, step.path, _of(self.shapes, step), axes)

    def _same(self, step: LoweredLayer, others: Sequence[Analysis], axes: tuple[int, ...]) -> bool:
        """Whether the layer's source for other sizes is the one for its own; what it learned does not matter here."""
        own = _of(self.shapes, step)
        different = {shapes for other in others if (shapes := _of(other.shapes, step)) != own}
        try:
            looks = _looks(step, own, axes) if different else None
            return bool(others) and all(_looks(step, shapes, axes) == looks for shapes in different)
        except (PrototxtGenError, RuntimeError):
            return False

    def _note(self, step: LoweredLayer, differing: Sequence[str]) -> None:
        for kind in differing:
            found = self.fixed.by.setdefault(kind, [])
            if self.others[kind]:
                found.append(f"layer {step.layer.name!r} ({step.layer.type})")


def _of(shapes: Mapping[Value, Shape], step: LoweredLayer) -> tuple[Shape, ...]:
    return tuple(shapes[value] for value in step.layer.bottoms)


def _looks(step: LoweredLayer, bottoms: Sequence[Shape], axes: tuple[int, ...]) -> object:
    """Return the source of a layer with nothing learned; a stock module takes no memory for it."""
    with torch.device("meta"):
        light = step.layer_type.torch(step.layer, bottoms)
        stock = stock_expression(light, len(bottoms[0]) if bottoms else 0)
    if stock is not None:
        return stock
    return piece(step.layer, step.layer_type.torch(step.layer, bottoms), step.path, bottoms, axes).looks()


def _sizes(analysis: Analysis) -> list[Analysis]:
    """Return the net for other sizes of its images; none where it does not take images that are much larger.

    One size is enough where weights go by it.
    """
    larger = _taken([resized(analysis, *_MORE)])
    return [*larger, *other_sizes(analysis)] if larger and not relearned(analysis, larger[0]) else larger


def _taken(analyses: Sequence[Analysis]) -> list[Analysis]:
    return [one for one in analyses if one.complete]
