"""A trace as Python: one statement for each call, or one expression where a result is used but once."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.nn import functional

from converters.pytorch_export.call_trace import Call, Trace, used_names
from converters.pytorch_export.symbolic_sizes import Name, Size

_OPERATORS = {
    "mul": "*",
    "add": "+",
    "sub": "-",
    "div": "/",
    "pow": "**",
    "__pow__": "**",
    "matmul": "@",
    "gt": ">",
    "ge": ">=",
    "lt": "<",
    "le": "<=",
    "__and__": "&",
    "__or__": "|",
    "__floordiv__": "//",
    "remainder": "%",
}
_TURNED = {"__rsub__": "-", "__rdiv__": "/", "__rtruediv__": "/", "__rpow__": "**", "__radd__": "+", "__rmul__": "*"}
_LONGEST = 96
Line = str


class Writer:
    """Writes the calls of one trace. `names` gives the Python of inputs; what the module holds is under `home`."""

    def __init__(self, trace: Trace, names: Mapping[str, str], home: str, taken: set[str]) -> None:
        self.trace, self.home, self.taken = trace, home, taken
        self.texts: dict[str, str] = dict(names)
        """The expression that each tensor is, by name."""
        self.lines: list[Line] = []
        self.uses = Counter(n.text for call in trace.calls for n in used_names((call.arguments, call.keywords)))
        self.uses.update(name.text for name in trace.outputs)
        self.sized = {n.text for call in trace.calls for n in _sized((call.arguments, call.keywords))}
        self.plain = not any(call.in_place for call in trace.calls)

    def write(self) -> tuple[list[Line], list[str]]:
        """Return the statements, and the expression of each output."""
        for call in self.trace.calls:
            self._call(call)
        return self.lines, [self.text(name) for name in self.trace.outputs]

    def text(self, value: Any) -> str:
        """Return an argument as Python."""
        if isinstance(value, Name):
            return f"{self.home}.{value.text}" if value.held else self.texts[value.text]
        if isinstance(value, Size):
            return bare(value.text.format(*(self.text(name) for name in value.tensors)))
        if isinstance(value, slice):
            return _slice_text([self.text(part) for part in (value.start, value.stop, value.step)])
        if isinstance(value, (tuple, list)):
            inside = ", ".join(map(self.text, value))
            return f"[{inside}]" if isinstance(value, list) else f"({inside},)" if len(value) == 1 else f"({inside})"
        return literal(value, device=self._device())

    def _device(self) -> str:
        found = next(iter(self.trace.inputs), None)
        return f"{self.texts[found.text]}.device" if found else "None"

    def _call(self, call: Call) -> None:
        expression = self._expression(call)
        if call.in_place:
            self.lines.append(expression)
            return
        named = [name for name in call.results if name is not None and self.uses[name.text]]
        if not named:
            return
        if call.single:
            self._bind(named[0], expression)
        else:
            self._unpack(call, expression)

    def _unpack(self, call: Call, expression: str) -> None:
        used = [name for name in call.results if name is not None and self.uses[name.text]]
        if len(used) == 1:
            self._bind(used[0], f"{expression}[{call.results.index(used[0])}]")
            return
        targets = [self._variable(name) if name in used and name else "_" for name in call.results]
        self.lines.append(f"{', '.join(targets)} = {expression}")

    def _bind(self, name: Name, expression: str) -> None:
        once = self.uses[name.text] == 1 and name.text not in self.sized
        if self.plain and once and len(expression) <= _LONGEST:
            self.texts[name.text] = expression
        else:
            self.lines.append(f"{self._variable(name)} = {bare(expression)}")

    def _variable(self, name: Name) -> str:
        found = next(v for v in (f"y{index}" for index in range(len(self.taken) + 1)) if v not in self.taken)
        self.taken.add(found)
        self.texts[name.text] = found
        return found

    def _expression(self, call: Call) -> str:
        module, _, method = call.function.rpartition(".")
        texts = [self.text(one) for one in call.arguments]
        defaults = _defaults(call.function)
        said = {key: value for key, value in call.keywords.items() if key not in defaults or defaults[key] != value}
        named = [f"{key}={self.text(value)}" for key, value in said.items()]
        if module != "torch.Tensor":
            short = module.replace("torch.nn.functional", "F")
            return f"{short}.{method}({', '.join([*map(bare, texts), *named])})"
        if method in _OPERATORS and len(texts) == 2 and not named:
            return f"({texts[0]} {_OPERATORS[method]} {texts[1]})"
        if method in _TURNED and len(texts) == 2:
            return f"({texts[1]} {_TURNED[method]} {texts[0]})"
        if method == "neg":
            return f"(-{texts[0]})"
        if method in ("__getitem__", "__setitem__"):
            item = f"{texts[0]}[{_index(call.arguments[1], texts[1])}]"
            return item if method == "__getitem__" else f"{item} = {bare(texts[2])}"
        return f"{texts[0]}.{method}({', '.join([*map(bare, texts[1:]), *named])})"


@cache
def _defaults(function: str) -> dict[str, Any]:
    """Return the defaults of a function of torch.nn.functional that is written in Python."""
    if not function.startswith("torch.nn.functional."):
        return {}
    try:
        known = inspect.signature(getattr(functional, function.rsplit(".", 1)[-1])).parameters
    except (ValueError, TypeError, AttributeError):
        return {}
    return {name: p.default for name, p in known.items() if p.default is not inspect.Parameter.empty}


def _sized(value: Any) -> list[Name]:
    """Return the tensors whose shape an argument asks for: these need a name."""
    if isinstance(value, Size):
        return list(value.tensors)
    if isinstance(value, dict):
        return _sized(tuple(value.values()))
    if isinstance(value, slice):
        return _sized((value.start, value.stop, value.step))
    return [name for one in value for name in _sized(one)] if isinstance(value, (tuple, list)) else []


def _index(value: Any, text: str) -> str:
    return text[1:-1].rstrip(",") if isinstance(value, tuple) and len(value) > 1 else text


def _slice_text(parts: Sequence[str]) -> str:
    start, stop, step = ("" if part == "None" else part for part in parts)
    return f"{start}:{stop}" + (f":{step}" if step else "")


def bare(expression: str) -> str:
    """Return an expression without parentheses around all of it."""
    if not (expression.startswith("(") and expression.endswith(")")):
        return expression
    depth = 0
    for index, character in enumerate(expression):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            whole = index == len(expression) - 1 and len(expression) > 2 and "," not in expression
            return expression[1:-1] if whole else expression
    return expression


def literal(value: Any, device: str = "None") -> str:
    """Return a constant as Python; TypeError where it is none."""
    if isinstance(value, torch.device):
        return device
    if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
        return str(value)
    if value is Ellipsis:
        return "..."
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return repr(value)
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f'float("{value}")'
    if isinstance(value, (tuple, list)):
        inside = ", ".join(literal(one) for one in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside},)" if len(value) == 1 else f"({inside})"
    raise TypeError(f"{type(value).__name__} is no constant")
