"""Sizes that remember which tensor they are a size of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Name:
    """A tensor in a trace: an input, something the module holds (`held`), or a call's result."""

    text: str
    held: bool = False


@dataclass(frozen=True)
class Size:
    """A whole number made of sizes of tensors: `text` is Python, `{}` where the names of `tensors` go."""

    text: str
    tensors: tuple[Name, ...]


class Dim(int):
    """A size that remembers where it comes from; what is computed of it by + - * // % does too."""

    size: Size
    asked: Callable[[], None]

    @classmethod
    def of(cls, value: int, size: Size, asked: Callable[[], None]) -> Dim:
        """`asked` is called when the program goes by what the size is."""
        made = cls(value)
        made.size, made.asked = size, asked
        return made

    def _with(self, other: object, operator: str, turned: bool = False) -> Any:
        if not isinstance(other, int) or isinstance(other, bool):
            return NotImplemented
        one, two = (other, self) if turned else (self, other)
        value = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "//": int.__floordiv__, "%": int.__mod__}[
            operator
        ](int(one), int(two))
        (a, x), (b, y) = (_parts(one), _parts(two))
        return Dim.of(value, Size(f"({a} {operator} {b})", (*x, *y)), self.asked)

    def __add__(self, other: object) -> Any:
        return self._with(other, "+")

    def __radd__(self, other: object) -> Any:
        return self._with(other, "+", turned=True)

    def __sub__(self, other: object) -> Any:
        return self._with(other, "-")

    def __rsub__(self, other: object) -> Any:
        return self._with(other, "-", turned=True)

    def __mul__(self, other: object) -> Any:
        return self._with(other, "*")

    def __rmul__(self, other: object) -> Any:
        return self._with(other, "*", turned=True)

    def __floordiv__(self, other: object) -> Any:
        return self._with(other, "//")

    def __rfloordiv__(self, other: object) -> Any:
        return self._with(other, "//", turned=True)

    def __mod__(self, other: object) -> Any:
        return self._with(other, "%")

    def __neg__(self) -> Any:
        return Dim.of(-int(self), Size(f"(-{self.size.text})", self.size.tensors), self.asked)

    def __eq__(self, other: object) -> bool:
        self.asked()
        return int(self) == other

    def __lt__(self, other: int) -> bool:
        self.asked()
        return int(self) < other

    def __le__(self, other: int) -> bool:
        self.asked()
        return int(self) <= other

    def __gt__(self, other: int) -> bool:
        self.asked()
        return int(self) > other

    def __ge__(self, other: int) -> bool:
        self.asked()
        return int(self) >= other

    def __bool__(self) -> bool:
        self.asked()
        return int(self) != 0

    __hash__ = int.__hash__


def _parts(value: int) -> tuple[str, tuple[Name, ...]]:
    return (value.size.text, value.size.tensors) if isinstance(value, Dim) else (str(value), ())


class Dims(tuple[int, ...]):
    """A shape whose sizes may be Dims; `numel` as torch.Size has it."""

    __slots__ = ()

    def numel(self) -> int:
        total: int = 1
        for size in self:
            total = total * size
        return total
