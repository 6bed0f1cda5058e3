"""Symbolic sizes: integers that keep the expression they were computed by, such as `x.shape[0] * 2`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TensorName:
    """The name of a tensor in a trace.

    `is_attribute`: it is a parameter, buffer or constant of the module, and not an input or the result of a call.
    """

    text: str
    is_attribute: bool = False


@dataclass(frozen=True)
class SizeExpression:
    """An integer computed from shapes of tensors.

    `text` is a Python expression with `{}` in place of the names of `tensors`.
    """

    text: str
    tensors: tuple[TensorName, ...]


class SymbolicSize(int):
    """An int that keeps its expression. Results of + - * // % are symbolic too."""

    expression: SizeExpression
    on_use: Callable[[], None]

    @classmethod
    def of(cls, value: int, expression: SizeExpression, on_use: Callable[[], None]) -> SymbolicSize:
        """Return a symbolic size. `on_use` is called when the program uses the number itself, as in a comparison."""
        size = cls(value)
        size.expression, size.on_use = expression, on_use
        return size

    def _combine(self, other: object, operator: str, reflected: bool = False) -> Any:
        if not isinstance(other, int) or isinstance(other, bool):
            return NotImplemented
        left, right = (other, self) if reflected else (self, other)
        value = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "//": int.__floordiv__, "%": int.__mod__}[
            operator
        ](int(left), int(right))
        (left_text, left_tensors), (right_text, right_tensors) = _text_and_tensors(left), _text_and_tensors(right)
        expression = SizeExpression(f"({left_text} {operator} {right_text})", (*left_tensors, *right_tensors))
        return SymbolicSize.of(value, expression, self.on_use)

    def __add__(self, other: object) -> Any:
        return self._combine(other, "+")

    def __radd__(self, other: object) -> Any:
        return self._combine(other, "+", reflected=True)

    def __sub__(self, other: object) -> Any:
        return self._combine(other, "-")

    def __rsub__(self, other: object) -> Any:
        return self._combine(other, "-", reflected=True)

    def __mul__(self, other: object) -> Any:
        return self._combine(other, "*")

    def __rmul__(self, other: object) -> Any:
        return self._combine(other, "*", reflected=True)

    def __floordiv__(self, other: object) -> Any:
        return self._combine(other, "//")

    def __rfloordiv__(self, other: object) -> Any:
        return self._combine(other, "//", reflected=True)

    def __mod__(self, other: object) -> Any:
        return self._combine(other, "%")

    def __neg__(self) -> Any:
        expression = SizeExpression(f"(-{self.expression.text})", self.expression.tensors)
        return SymbolicSize.of(-int(self), expression, self.on_use)

    def __eq__(self, other: object) -> bool:
        self.on_use()
        return int(self) == other

    def __lt__(self, other: int) -> bool:
        self.on_use()
        return int(self) < other

    def __le__(self, other: int) -> bool:
        self.on_use()
        return int(self) <= other

    def __gt__(self, other: int) -> bool:
        self.on_use()
        return int(self) > other

    def __ge__(self, other: int) -> bool:
        self.on_use()
        return int(self) >= other

    def __bool__(self) -> bool:
        self.on_use()
        return int(self) != 0

    __hash__ = int.__hash__


def _text_and_tensors(value: int) -> tuple[str, tuple[TensorName, ...]]:
    return (value.expression.text, value.expression.tensors) if isinstance(value, SymbolicSize) else (str(value), ())


class SymbolicShape(tuple[int, ...]):
    """A shape whose sizes may be symbolic. It has `numel`, as torch.Size has."""

    __slots__ = ()

    def numel(self) -> int:
        total: int = 1
        for size in self:
            total = total * size
        return total
