"""Which sizes of its bottoms a layer's source goes by: found by writing it for other sizes and comparing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from converters.pytorch.pieces import Piece, piece
from converters.pytorch.stock import stock_expression
from converters.subject import bounds, reanalysed
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.errors import PrototxtGenError
from prototxt_gen.ir import Shape, Value
from prototxt_gen.lowering import lower_all
from prototxt_gen.torch_net import Step, TorchNet

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
        self.steps = {id(step.layer): step for step in net.steps}
        self.others = {"batch": _more_images(analysis), "size": _larger_images(analysis)}
        self.fixed = Fixed()

    def write(self, row: Row) -> Piece:
        step = self.steps[id(row.layer)]
        for axes in (_EVERY_AXIS, _BATCH_AXIS):
            differing = [kind for kind, other in self.others.items() if not self._same(step, other, axes)]
            if not differing or axes == _BATCH_AXIS:
                break
        self._note(step, differing)
        return piece(step.layer, step.module, step.path, _of(self.shapes, step), axes)

    def _same(self, step: Step, other: Analysis | None, axes: tuple[int, ...]) -> bool:
        """Whether the layer's source for other sizes is the one for its own; what it learned does not matter here."""
        if other is None:
            return False
        try:
            return _looks(step, _of(self.shapes, step), axes) == _looks(step, _of(other.shapes, step), axes)
        except (PrototxtGenError, RuntimeError):
            return False

    def _note(self, step: Step, differing: Sequence[str]) -> None:
        for kind in differing:
            found = self.fixed.by.setdefault(kind, [])
            if self.others[kind] is not None:
                found.append(f"layer {step.layer.name!r} ({step.layer.type})")


def _of(shapes: Mapping[Value, Shape], step: Step) -> list[Shape]:
    return [shapes[value] for value in step.layer.bottoms]


def _looks(step: Step, bottoms: Sequence[Shape], axes: tuple[int, ...]) -> object:
    """Return the source of a layer with nothing learned; a stock module takes no memory for it."""
    with torch.device("meta"):
        light = step.room.torch(step.layer, bottoms)
        stock = stock_expression(light, len(bottoms[0]) if bottoms else 0)
    if stock is not None:
        return stock
    return piece(step.layer, step.room.torch(step.layer, bottoms), step.path, bottoms, axes).looks()


def _more_images(analysis: Analysis) -> Analysis | None:
    shapes = bounds(analysis)
    batch = next((shape[0] for shape in shapes.values() if shape), 1)
    grown = {blob: (batch + 1, *shape[1:]) for blob, shape in shapes.items() if shape[:1] == (batch,)}
    return _complete(reanalysed(analysis, grown))


def _larger_images(analysis: Analysis) -> Analysis | None:
    shapes = {blob: shape for blob, shape in bounds(analysis).items() if len(shape) == 4}
    grown = {blob: (*s[:2], s[2] + _MORE[0], s[3] + _MORE[1]) for blob, s in shapes.items()}
    return _complete(reanalysed(analysis, grown))


def _complete(analysis: Analysis) -> Analysis | None:
    return analysis if analysis.complete else None
