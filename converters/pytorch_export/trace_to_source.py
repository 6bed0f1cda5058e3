"""Writing a trace as Python statements. A result that is used only once becomes part of a larger expression."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.nn import functional

from converters.pytorch_export.call_trace import CallTrace, TorchCall, used_names
from converters.pytorch_export.symbolic_sizes import SizeExpression, TensorName

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
_REFLECTED_OPERATORS = {
    "__rsub__": "-",
    "__rdiv__": "/",
    "__rtruediv__": "/",
    "__rpow__": "**",
    "__radd__": "+",
    "__rmul__": "*",
}
_MAX_EXPRESSION_LENGTH = 96


class TraceWriter:
    """Writes the calls of one trace as Python.

    `inputs`: the expression of each input, by name. `module_name`: the expression of the module, such as "self.conv1".
    `used_variables`: variable names that are not free; new ones are added.
    """

    def __init__(self, trace: CallTrace, inputs: Mapping[str, str], module_name: str, used_variables: set[str]) -> None:
        self.trace, self.module_name, self.used_variables = trace, module_name, used_variables
        self.expressions: dict[str, str] = dict(inputs)
        """The expression of each tensor, by name."""
        self.lines: list[str] = []
        arguments = [(call.arguments, call.keywords) for call in trace.calls]
        self.uses = Counter(name.text for name in [*used_names(arguments), *trace.outputs])
        self.needs_name = {name.text for name in _tensors_with_used_shape(arguments)}
        self.can_reorder = not any(call.is_in_place for call in trace.calls)

    def write(self) -> tuple[list[str], list[str]]:
        """Return the statements, and the expression of each output."""
        for call in self.trace.calls:
            self._write_call(call)
        return self.lines, [self.text(name) for name in self.trace.outputs]

    def text(self, value: Any) -> str:
        """Return the argument of a call as Python."""
        if isinstance(value, TensorName):
            return f"{self.module_name}.{value.text}" if value.is_attribute else self.expressions[value.text]
        if isinstance(value, SizeExpression):
            return without_outer_parentheses(value.text.format(*(self.text(name) for name in value.tensors)))
        if isinstance(value, slice):
            return _slice_text([self.text(part) for part in (value.start, value.stop, value.step)])
        if isinstance(value, (tuple, list)):
            inside = ", ".join(map(self.text, value))
            return f"[{inside}]" if isinstance(value, list) else f"({inside},)" if len(value) == 1 else f"({inside})"
        return python_literal(value, device=self._device_text())

    def _device_text(self) -> str:
        first = next(iter(self.trace.inputs), None)
        return f"{self.expressions[first.text]}.device" if first else "None"

    def _write_call(self, call: TorchCall) -> None:
        expression = self._call_expression(call)
        if call.is_in_place:
            self.lines.append(expression)
            return
        used = [name for name in call.results if name is not None and self.uses[name.text]]
        if not used:
            return
        if call.returns_tensor:
            self._bind(used[0], expression)
        else:
            self._unpack(call, used, expression)

    def _unpack(self, call: TorchCall, used: Sequence[TensorName], expression: str) -> None:
        """Assign the used results of a call that returns a tuple."""
        if len(used) == 1:
            self._bind(used[0], f"{expression}[{call.results.index(used[0])}]")
            return
        targets = [self._new_variable(name) if name in used and name else "_" for name in call.results]
        self.lines.append(f"{', '.join(targets)} = {expression}")

    def _bind(self, name: TensorName, expression: str) -> None:
        """Keep a result as an expression if it is used once and short, else assign it to a variable."""
        is_used_once = self.uses[name.text] == 1 and name.text not in self.needs_name
        if self.can_reorder and is_used_once and len(expression) <= _MAX_EXPRESSION_LENGTH:
            self.expressions[name.text] = expression
        else:
            self.lines.append(f"{self._new_variable(name)} = {without_outer_parentheses(expression)}")

    def _new_variable(self, name: TensorName) -> str:
        candidates = (f"y{index}" for index in range(len(self.used_variables) + 1))
        variable = next(candidate for candidate in candidates if candidate not in self.used_variables)
        self.used_variables.add(variable)
        self.expressions[name.text] = variable
        return variable

    def _call_expression(self, call: TorchCall) -> str:
        module, _, method = call.function.rpartition(".")
        texts = [self.text(argument) for argument in call.arguments]
        defaults = _default_arguments(call.function)
        changed = {key: value for key, value in call.keywords.items() if key not in defaults or defaults[key] != value}
        keywords = [f"{key}={self.text(value)}" for key, value in changed.items()]
        if module != "torch.Tensor":
            short = module.replace("torch.nn.functional", "F")
            return f"{short}.{method}({', '.join([*map(without_outer_parentheses, texts), *keywords])})"
        if method in _OPERATORS and len(texts) == 2 and not keywords:
            return f"({texts[0]} {_OPERATORS[method]} {texts[1]})"
        if method in _REFLECTED_OPERATORS and len(texts) == 2:
            return f"({texts[1]} {_REFLECTED_OPERATORS[method]} {texts[0]})"
        if method == "neg":
            return f"(-{texts[0]})"
        if method in ("__getitem__", "__setitem__"):
            item = f"{texts[0]}[{_index_text(call.arguments[1], texts[1])}]"
            return item if method == "__getitem__" else f"{item} = {without_outer_parentheses(texts[2])}"
        return f"{texts[0]}.{method}({', '.join([*map(without_outer_parentheses, texts[1:]), *keywords])})"


@cache
def _default_arguments(function: str) -> dict[str, Any]:
    """Return the default arguments of a torch.nn.functional function; empty for other and built-in functions."""
    if not function.startswith("torch.nn.functional."):
        return {}
    try:
        parameters = inspect.signature(getattr(functional, function.rsplit(".", 1)[-1])).parameters
    except (ValueError, TypeError, AttributeError):
        return {}
    return {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}


def _tensors_with_used_shape(value: Any) -> list[TensorName]:
    """Return the tensors whose shapes an argument uses; they need a variable."""
    if isinstance(value, SizeExpression):
        return list(value.tensors)
    if isinstance(value, dict):
        return _tensors_with_used_shape(tuple(value.values()))
    if isinstance(value, slice):
        return _tensors_with_used_shape((value.start, value.stop, value.step))
    parts = value if isinstance(value, (tuple, list)) else ()
    return [name for part in parts for name in _tensors_with_used_shape(part)]


def _index_text(value: Any, text: str) -> str:
    """Return the text of an index; a tuple is written without its parentheses."""
    return text[1:-1].rstrip(",") if isinstance(value, tuple) and len(value) > 1 else text


def _slice_text(parts: Sequence[str]) -> str:
    start, stop, step = ("" if part == "None" else part for part in parts)
    return f"{start}:{stop}" + (f":{step}" if step else "")


def without_outer_parentheses(expression: str) -> str:
    """Return an expression without the parentheses that enclose all of it, unless it is a tuple."""
    if not (expression.startswith("(") and expression.endswith(")")):
        return expression
    depth = 0
    for index, character in enumerate(expression):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            encloses_all = index == len(expression) - 1 and len(expression) > 2 and "," not in expression
            return expression[1:-1] if encloses_all else expression
    return expression


def python_literal(value: Any, device: str = "None") -> str:
    """Return a constant as Python. Raises TypeError if the value has no such form.

    `device`: the expression for a torch.device.
    """
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
        inside = ", ".join(map(python_literal, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside},)" if len(value) == 1 else f"({inside})"
    raise TypeError(f"{type(value).__name__} is not a constant")
