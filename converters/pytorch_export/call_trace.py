"""Tracing a module: runs it and records its calls of torch functions.

Loops and branches are executed, so a trace has none. Sizes along chosen axes stay symbolic, so that a trace does not
depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from converters.pytorch_export.symbolic_sizes import SizeExpression, SymbolicShape, SymbolicSize, TensorName
from prototxt_gen.ir import Shape

_VALUE_READERS = frozenset(
    {"__bool__", "__int__", "__float__", "__index__", "__complex__", "__array__", "item", "tolist", "numpy"}
)
_SIZED_BY_DATA = frozenset({"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount"})
_MAX_LITERAL_SIZE = 16
"""Largest tensor made from Python numbers that is written as source; a larger one becomes a buffer."""


class UntraceableError(Exception):
    """A module cannot be traced: its calls depend on the numbers in its input, or it uses code other than torch."""


@dataclass(frozen=True)
class TorchCall:
    """One call of a torch function.

    `function`: its dotted name, such as "torch.Tensor.mul". `arguments` and `keywords`: values, with TensorName for
    tensors and SizeExpression for symbolic sizes. `results`: names of the resulting tensors, None for a result that is
    no tensor. `returns_tensor`: the function returns one tensor, not a tuple.
    """

    function: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    results: tuple[TensorName | None, ...]
    returns_tensor: bool

    @property
    def is_in_place(self) -> bool:
        method = self.function.rsplit(".", 1)[-1]
        return method == "__setitem__" or (method.endswith("_") and not method.endswith("__"))


@dataclass
class CallTrace:
    """The calls of a module in order, the names of its inputs and outputs, and constant tensors by name."""

    inputs: tuple[TensorName, ...]
    calls: list[TorchCall] = field(default_factory=list)
    outputs: tuple[TensorName, ...] = ()
    constants: dict[str, Tensor] = field(default_factory=dict)


class _Recorder(TorchFunctionMode):
    def __init__(self, module: nn.Module, inputs: Sequence[Tensor], symbolic_axes: Collection[int]) -> None:
        super().__init__()
        self.symbolic_axes, self.size_was_used = symbolic_axes, False
        self.trace = CallTrace(tuple(TensorName(f"x{index}") for index in range(len(inputs))))
        self.kept_tensors: list[Tensor] = []
        self.names: dict[int, TensorName] = {}
        for text, tensor in [*module.named_parameters(), *module.named_buffers()]:
            self._remember(tensor, TensorName(text, is_attribute=True))
        for name, tensor in zip(self.trace.inputs, inputs, strict=True):
            self._remember(tensor, name)

    def _remember(self, tensor: Tensor, name: TensorName) -> TensorName:
        self.kept_tensors.append(tensor)  # keeps the tensor alive, so that no other object gets its id
        self.names[id(tensor)] = name
        return name

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        function = resolve_name(func)
        if function is None:
            return func(*args, **(kwargs or {}))
        method = function.removesuffix(".__get__").rsplit(".", 1)[-1]
        if method in _VALUE_READERS or method in _SIZED_BY_DATA or _selects_by_mask(method, args):
            raise UntraceableError(f"it uses {function}")
        result = func(*args, **(kwargs or {}))
        if method in ("shape", "size", "__len__") and args and isinstance(args[0], Tensor):
            axes = args[1:] if method == "size" else (0,) if method == "__len__" else ()
            return self._symbolic_sizes(args[0], result, axes)
        self._record(function, tuple(args), kwargs or {}, result)
        return result

    def _symbolic_sizes(self, tensor: Tensor, sizes: Any, axes: Sequence[int]) -> Any:
        name = self.name(tensor)
        if not isinstance(sizes, tuple):
            return self._symbolic_size(name, axes[0] % max(1, tensor.dim()), sizes)
        return SymbolicShape(self._symbolic_size(name, axis, size) for axis, size in enumerate(sizes))

    def _symbolic_size(self, name: TensorName, axis: int, size: int) -> int:
        if axis not in self.symbolic_axes or name.is_attribute:
            return size
        return SymbolicSize.of(size, SizeExpression(f"{{}}.shape[{axis}]", (name,)), self._mark_size_used)

    def _mark_size_used(self) -> None:
        self.size_was_used = True

    def name(self, tensor: Tensor) -> TensorName:
        """Return a tensor's name. A tensor that is neither an input nor a result is recorded as a constant."""
        name = self.names.get(id(tensor))
        if name is None:
            text = f"constant{len(self.trace.constants) or ''}"
            name = self._remember(tensor, TensorName(text, is_attribute=True))
            self.trace.constants[name.text] = tensor
        return name

    def _record(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        results = result if isinstance(result, (tuple, list)) else (result,)
        if not any(isinstance(part, Tensor) for part in results) and not function.endswith("__setitem__"):
            return  # such as Tensor.dim or Tensor.device
        if any(isinstance(arg, Tensor) and arg is result for arg in args) and not _is_in_place(function):
            return  # such as float() of a float32 tensor
        if _is_identity(function, args, kwargs, result):
            self._remember(result, self.name(args[0]))
            return
        arguments = tuple(self._argument(arg) for arg in args)
        keywords = {key: self._argument(value) for key, value in kwargs.items()}
        if isinstance(result, Tensor) and result.numel() > _MAX_LITERAL_SIZE and not _has_tensor((args, kwargs)):
            return  # made from Python numbers: it becomes a constant
        if _is_in_place(function):
            self.trace.calls.append(TorchCall(function, arguments, keywords, (None,), returns_tensor=True))
            return
        names = tuple(self._result_name(part) for part in results)
        returns_tensor = not isinstance(result, (tuple, list))
        self.trace.calls.append(TorchCall(function, arguments, keywords, names, returns_tensor))

    def _result_name(self, result: Any) -> TensorName | None:
        if not isinstance(result, Tensor):
            return None
        return self._remember(result, TensorName(f"t{len(self.kept_tensors)}"))

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.name(value)
        if isinstance(value, SymbolicSize):
            return value.expression
        if isinstance(value, (tuple, list)):
            return type(value)(self._argument(part) for part in value) if type(value) in (tuple, list) else tuple(value)
        if isinstance(value, slice):
            return slice(*(self._argument(part) for part in (value.start, value.stop, value.step)))
        return value


def _is_in_place(function: str) -> bool:
    return TorchCall(function, (), {}, (), True).is_in_place


def _selects_by_mask(method: str, args: Sequence[Any]) -> bool:
    """Whether a call selects elements by a mask, so that the shape of its result depends on the numbers."""
    if method == "where":
        return len(args) == 1
    index = args[1] if method == "__getitem__" else ()
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in parts)


def _is_identity(function: str, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> bool:
    """Whether a call changes nothing: a multiplication or division by 1.0, an addition or subtraction of 0.0."""
    neutral = {"torch.Tensor.mul": 1.0, "torch.Tensor.div": 1.0, "torch.Tensor.add": 0.0, "torch.Tensor.sub": 0.0}
    if kwargs or len(args) != 2 or not isinstance(args[1], float) or neutral.get(function) != args[1]:
        return False
    return isinstance(args[0], Tensor) and args[0].dtype == result.dtype


def _has_tensor(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_tensor, value.values()))
    if isinstance(value, (tuple, list)):
        return any(map(_has_tensor, value))
    return isinstance(value, Tensor)


def trace_calls(module: nn.Module, shapes: Sequence[Shape], symbolic_axes: Collection[int]) -> CallTrace:
    """Run a module in eval mode on random bottoms of these shapes, and return the calls it makes.

    `symbolic_axes`: axes whose sizes stay symbolic. Raises UntraceableError if the calls depend on the numbers in the
    bottoms, or on a symbolic size.
    """
    inputs = [torch.rand(shape) for shape in shapes]
    recorder = _Recorder(module, inputs, symbolic_axes)
    was_training = module.training
    try:
        with torch.no_grad(), recorder:
            result = module.eval()(*inputs)
    finally:
        module.train(was_training)
    if recorder.size_was_used:
        raise UntraceableError("it depends on a size that should stay open")
    tops = result if isinstance(result, (tuple, list)) else (result,)
    recorder.trace.outputs = tuple(recorder.name(top) for top in tops)
    return _without_unused_calls(recorder.trace)


def _without_unused_calls(trace: CallTrace) -> CallTrace:
    """Return the trace without calls whose results are not used. If any call works in place, all calls stay."""
    if any(call.is_in_place for call in trace.calls):
        return trace
    wanted = {name.text for name in trace.outputs}
    kept: list[TorchCall] = []
    for call in reversed(trace.calls):
        if any(name is not None and name.text in wanted for name in call.results):
            wanted |= {name.text for name in used_names((call.arguments, call.keywords))}
            kept.append(call)
    constants = {name: tensor for name, tensor in trace.constants.items() if name in wanted}
    return CallTrace(trace.inputs, kept[::-1], trace.outputs, constants)


def used_names(value: Any) -> Iterator[TensorName]:
    """Yield the name of every tensor in an argument, at any depth."""
    if isinstance(value, TensorName):
        yield value
    elif isinstance(value, SizeExpression):
        yield from value.tensors
    elif isinstance(value, dict):
        yield from used_names(tuple(value.values()))
    elif isinstance(value, slice):
        yield from used_names((value.start, value.stop, value.step))
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from used_names(part)
