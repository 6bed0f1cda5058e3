"""What a module of ours does, as a list of calls of torch's own functions: found by running it and looking on.

Python's own control flow is followed, so loops and branches are gone from the trace; sizes stay symbolic where asked
for, so that a trace need not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from converters.pytorch_export.symbolic_sizes import Dim, Dims, Name, Size
from prototxt_gen.ir import Shape

_ESCAPES = frozenset(
    {"__bool__", "__int__", "__float__", "__index__", "__complex__", "__array__", "item", "tolist", "numpy"}
)
_SIZED_BY_NUMBERS = frozenset({"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount"})
_SMALL = 16
"""Tensors made of Python numbers are written out up to so many; larger ones are kept as buffers."""


class UntraceableError(Exception):
    """The module looks at the numbers themselves, or leaves torch: its calls differ from input to input."""


@dataclass(frozen=True)
class Call:
    """One call. `function` is torch's dotted name; `results` are the tensors it makes, in order, None if not a tensor.

    `single`: the result is one tensor and not a tuple of them.
    """

    function: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    results: tuple[Name | None, ...]
    single: bool

    @property
    def in_place(self) -> bool:
        method = self.function.rsplit(".", 1)[-1]
        return method == "__setitem__" or (method.endswith("_") and not method.endswith("__"))


@dataclass
class Trace:
    """The calls in order, the names of the outputs, and tensors that are constant, by name."""

    inputs: tuple[Name, ...]
    calls: list[Call] = field(default_factory=list)
    outputs: tuple[Name, ...] = ()
    constants: dict[str, Tensor] = field(default_factory=dict)


class _Recorder(TorchFunctionMode):
    def __init__(self, module: nn.Module, inputs: Sequence[Tensor], symbolic: Collection[int]) -> None:
        super().__init__()
        self.symbolic, self.asked = symbolic, False
        self.trace = Trace(tuple(Name(f"x{index}") for index in range(len(inputs))))
        self.kept: list[Tensor] = []
        self.names: dict[int, Name] = {}
        held = [*module.named_parameters(), *module.named_buffers()]
        for name, tensor in held:
            self._keep(tensor, Name(name, held=True))
        for name_, tensor in zip(self.trace.inputs, inputs, strict=True):
            self._keep(tensor, name_)

    def _keep(self, tensor: Tensor, name: Name) -> Name:
        self.kept.append(tensor)  # so that no other object gets its id
        self.names[id(tensor)] = name
        return name

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        function = resolve_name(func)
        if function is None:
            return func(*args, **(kwargs or {}))
        method = function.removesuffix(".__get__").rsplit(".", 1)[-1]
        if method in _ESCAPES or method in _SIZED_BY_NUMBERS or _is_masked(method, args):
            raise UntraceableError(f"it uses {function}")
        made = func(*args, **(kwargs or {}))
        if method in ("shape", "size", "__len__") and args and isinstance(args[0], Tensor):
            return self._sizes(args[0], made, args[1:] if method == "size" else (0,) if method == "__len__" else ())
        self._record(function, tuple(args), kwargs or {}, made)
        return made

    def _sizes(self, tensor: Tensor, made: Any, axes: Sequence[int]) -> Any:
        name = self.name(tensor)
        if not isinstance(made, tuple):
            return self._dim(name, axes[0] % max(1, tensor.dim()), made)
        return Dims(self._dim(name, axis, size) for axis, size in enumerate(made))

    def _dim(self, name: Name, axis: int, size: int) -> int:
        if axis not in self.symbolic or name.held:
            return size
        return Dim.of(size, Size(f"{{}}.shape[{axis}]", (name,)), self._ask)

    def _ask(self) -> None:
        self.asked = True

    def name(self, tensor: Tensor) -> Name:
        """Return a tensor's name; one that no call made is a constant."""
        found = self.names.get(id(tensor))
        if found is None:
            found = self._keep(tensor, Name(f"constant{len(self.trace.constants) or ''}", held=True))
            self.trace.constants[found.text] = tensor
        return found

    def _record(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> None:
        results = made if isinstance(made, (tuple, list)) else (made,)
        if not any(isinstance(one, Tensor) for one in results) and not function.endswith("__setitem__"):
            return  # such as Tensor.dim and Tensor.device
        if any(isinstance(one, Tensor) and one is made for one in args) and not _is_in_place(function):
            return  # such as .float() of what is float32
        if _is_idle(function, args, kwargs, made):
            self._keep(made, self.name(args[0]))
            return
        given = tuple(self._argument(one) for one in args)
        named = {key: self._argument(value) for key, value in kwargs.items()}
        if isinstance(made, Tensor) and made.numel() > _SMALL and not any(map(_has_tensor, (args, kwargs))):
            return  # made of plain numbers: it will be a constant
        if _is_in_place(function):
            self.trace.calls.append(Call(function, given, named, (None,), single=True))
            return
        names = tuple(self._result(one) for one in results)
        self.trace.calls.append(Call(function, given, named, names, not isinstance(made, (tuple, list))))

    def _result(self, one: Any) -> Name | None:
        if not isinstance(one, Tensor):
            return None
        return self._keep(one, Name(f"t{len(self.kept)}"))

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.name(value)
        if isinstance(value, Dim):
            return value.size
        if isinstance(value, (tuple, list)):
            return type(value)(self._argument(one) for one in value) if type(value) in (tuple, list) else tuple(value)
        if isinstance(value, slice):
            return slice(*(self._argument(part) for part in (value.start, value.stop, value.step)))
        return value


def _is_in_place(function: str) -> bool:
    return Call(function, (), {}, (), True).in_place


def _is_masked(method: str, args: Sequence[Any]) -> bool:
    """Whether a call picks elements by a mask, or asks where one holds: how many there are depends on the numbers."""
    if method == "where":
        return len(args) == 1
    index = args[1] if method == "__getitem__" else ()
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in parts)


def _is_idle(function: str, args: Sequence[Any], kwargs: dict[str, Any], made: Any) -> bool:
    """Whether a call changes nothing: times or divided by 1.0, plus or minus 0.0."""
    idle = {"torch.Tensor.mul": 1.0, "torch.Tensor.div": 1.0, "torch.Tensor.add": 0.0, "torch.Tensor.sub": 0.0}
    if kwargs or len(args) != 2 or not isinstance(args[1], float) or idle.get(function) != args[1]:
        return False
    return isinstance(args[0], Tensor) and args[0].dtype == made.dtype


def _has_tensor(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_tensor, value.values()))
    if isinstance(value, (tuple, list)):
        return any(map(_has_tensor, value))
    return isinstance(value, Tensor)


def trace(module: nn.Module, shapes: Sequence[Shape], symbolic: Collection[int]) -> Trace:
    """Return the calls a module makes for bottoms of these shapes; sizes of the `symbolic` axes stay open.

    UntraceableError where the calls depend on the numbers, or on an open size.
    """
    inputs = [torch.rand(shape) for shape in shapes]
    recorder = _Recorder(module, inputs, symbolic)
    was_training = module.training
    try:
        with torch.no_grad(), recorder:
            made = module.eval()(*inputs)
    finally:
        module.train(was_training)
    if recorder.asked:
        raise UntraceableError("it goes by a size that is open")
    tops = made if isinstance(made, (tuple, list)) else (made,)
    recorder.trace.outputs = tuple(recorder.name(top) for top in tops)
    return _needed(recorder.trace)


def _needed(trace: Trace) -> Trace:
    """Return the trace without calls whose results nobody takes; all stay where one writes in place."""
    if any(call.in_place for call in trace.calls):
        return trace
    wanted = {name.text for name in trace.outputs}
    kept: list[Call] = []
    for call in reversed(trace.calls):
        if any(name is not None and name.text in wanted for name in call.results):
            wanted |= {name.text for name in used_names((call.arguments, call.keywords))}
            kept.append(call)
    constants = {name: tensor for name, tensor in trace.constants.items() if name in wanted}
    return Trace(trace.inputs, kept[::-1], trace.outputs, constants)


def used_names(value: Any) -> Iterator[Name]:
    """Yield every tensor that an argument names."""
    if isinstance(value, Name):
        yield value
    elif isinstance(value, Size):
        yield from value.tensors
    elif isinstance(value, dict):
        yield from used_names(tuple(value.values()))
    elif isinstance(value, slice):
        yield from used_names((value.start, value.stop, value.step))
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from used_names(one)
