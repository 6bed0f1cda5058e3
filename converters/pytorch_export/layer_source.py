"""One layer as PyTorch source: the constructor of its module, and the statements that run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from converters.pytorch_export.call_trace import CallTrace, UntraceableError, trace_calls, used_names
from converters.pytorch_export.nn_constructors import nn_constructor
from converters.pytorch_export.self_contained_source import SelfContainedSource, self_contained_source
from converters.pytorch_export.trace_to_source import TraceWriter, python_literal
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape


@dataclass
class LayerSource:
    """How one layer is written.

    `path`: the module's place in the net, with dots. `constructor`: the expression that makes the module; None if the
    layer needs none. `trace`: calls that are written instead of a call of the module. `tensors`: parameters and buffers
    of a module that is not from torch.nn, by name. `module_source`: the source of such a module, if it is not traced.
    """

    layer: Layer
    path: str
    constructor: str | None
    trace: CallTrace | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    module_source: SelfContainedSource | None = None
    returns_tuple: bool = False
    """Whether the module returns a tuple although the layer has one top."""

    def statements(
        self, module_name: str, bottoms: Sequence[str], used_variables: set[str]
    ) -> tuple[list[str], list[str]]:
        """Return the lines that run the layer, and the expression of each top.

        `module_name`: expression of the module, such as "self.conv1". `bottoms`: expressions of the bottoms.
        `used_variables`: variable names that are not free; new ones are added.
        """
        if self.trace is None:
            return [], self._module_call(module_name, bottoms)
        names = {name.text: bottom for name, bottom in zip(self.trace.inputs, bottoms, strict=True)}
        return TraceWriter(self.trace, names, module_name, used_variables).write()

    def _module_call(self, module_name: str, bottoms: Sequence[str]) -> list[str]:
        """Return the expression of each top; a module of torch.nn is called once per bottom."""
        tops = len(self.layer.tops)
        if self.module_source is None and tops == len(bottoms):
            return [f"{module_name}({bottom})" for bottom in bottoms]
        call = f"{module_name}({', '.join(bottoms)})"
        return [call] if tops == 1 and not self.returns_tuple else [f"{call}[{index}]" for index in range(tops)]

    def comparison_key(self) -> tuple[object, ...]:
        """Return an object that is equal for two layers whose source differs in learned numbers only."""
        bottoms = [f"x{index}" for index in range(len(self.layer.bottoms))]
        lines = self.statements("self.it", bottoms, set())
        constants = dict(self.trace.constants) if self.trace else {}
        return (self.constructor, lines, {name: (tensor.shape, tensor.tolist()) for name, tensor in constants.items()})


def layer_source(
    layer: Layer, module: nn.Module, path: str, shapes: Sequence[Shape], symbolic_axes: tuple[int, ...]
) -> LayerSource:
    """Write one layer: as a module of torch.nn, else as traced calls, else with the source of its module.

    `shapes`: shapes of the bottoms. `symbolic_axes`: axes along which other sizes should be possible. Raises
    UnsupportedError if none of the three is possible.
    """
    constructor = nn_constructor(module, len(shapes[0]) if shapes else 0)
    if constructor is not None:
        return LayerSource(layer, path, constructor)
    if hasattr(module, "persistent_state"):  # a state that is kept from run to run, which a trace cannot express
        return _with_module_source(layer, module, path, shapes)
    try:
        trace = _trace(module, shapes, symbolic_axes)
    except UntraceableError:
        return _with_module_source(layer, module, path, shapes)
    tensors = _used_tensors(trace, module)
    return LayerSource(layer, path, _holder_constructor("nn.Module()", tensors, {}), trace, tensors)


def _trace(module: nn.Module, shapes: Sequence[Shape], symbolic_axes: tuple[int, ...]) -> CallTrace:
    """Trace with as many symbolic axes as the module allows: those given, the batch axis only, or none."""
    for axes in (symbolic_axes, (0,)):
        try:
            return trace_calls(module, shapes, axes)
        except UntraceableError:
            continue
    return trace_calls(module, shapes, ())


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])


def _used_tensors(trace: CallTrace, module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that the trace uses, and its constants."""
    names = [name for call in trace.calls for name in used_names((call.arguments, call.keywords))]
    used = {name.text for name in [*names, *trace.outputs] if name.is_attribute}
    return {name: tensor for name, tensor in (_own_tensors(module) | trace.constants).items() if name in used}


def _with_module_source(layer: Layer, module: nn.Module, path: str, shapes: Sequence[Shape]) -> LayerSource:
    try:
        source = self_contained_source(module)
    except UntraceableError as error:
        raise UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): it cannot be written as PyTorch source: {error}"
        ) from None
    tensors = _own_tensors(module)
    constructor = _holder_constructor(source.expression, tensors, source.attributes)
    returns_tuple = len(layer.tops) == 1 and _returns_tuple(module, shapes)
    return LayerSource(layer, path, constructor, None, tensors, source, returns_tuple)


def _returns_tuple(module: nn.Module, shapes: Sequence[Shape]) -> bool:
    """Whether a copy of the module, run on zeros, returns a tuple. False if it does not accept zeros."""
    try:
        with torch.no_grad():
            return isinstance(deepcopy(module)(*(torch.zeros(shape) for shape in shapes)), tuple)
    except Exception:  # a plugin's module may raise any error
        return False


def _holder_constructor(constructor: str, tensors: Mapping[str, Tensor], attributes: Mapping[str, str]) -> str | None:
    """Return the call that makes a module and gives it these tensors and attributes.

    None if the module would be empty, so that the layer needs none. For `holding` see `source_snippets`.
    """
    if not tensors and not attributes:
        return None if constructor == "nn.Module()" else constructor
    parameters = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, nn.Parameter)}
    texts = [f'"{name}": {_shape_text(tensor)}' for name, tensor in parameters.items()]
    buffers = [f'"{name}": {_shape_text(tensor)}' for name, tensor in tensors.items() if name not in parameters]
    arguments = [constructor, f"{{{', '.join(texts)}}}"]
    arguments += [f"{{{', '.join(buffers)}}}"] if buffers or attributes else []
    return f"holding({', '.join([*arguments, *(f'{name}={text}' for name, text in attributes.items())])})"


def _shape_text(tensor: Tensor) -> str:
    """Return the shape as Python, in a pair with the dtype if that is not float32."""
    shape = python_literal(tuple(tensor.shape))
    return shape if tensor.dtype == torch.float32 else f"({shape}, {tensor.dtype})"
