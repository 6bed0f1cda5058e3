"""Each layer of a net as Python for PyTorch: the module it needs, and the statements that run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from converters.pytorch_export.call_trace import Trace, UntraceableError, trace
from converters.pytorch_export.nn_constructors import stock_expression
from converters.pytorch_export.self_contained_source import Bundle, bundled
from converters.pytorch_export.trace_to_source import Writer, literal
from prototxt_gen.common.errors import UnsupportedError
from prototxt_gen.ir import Layer, Shape


@dataclass
class Piece:
    """How one layer is written.

    `made` makes its module; None where it needs none. `traced`: the calls that stand for the layer; otherwise its
    module is called. `tensors`: what a module of ours holds, by name. `bundle`: its source.
    """

    layer: Layer
    path: str
    made: str | None
    traced: Trace | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    bundle: Bundle | None = None
    gives_tuple: bool = False
    """Whether the module gives a tuple, though there is one top."""

    def statements(self, home: str, bottoms: Sequence[str], taken: set[str]) -> tuple[list[str], list[str]]:
        """Return the lines, and the expression of each top, for a module at `home` and these bottoms."""
        if self.traced is None:
            return self._called(home, bottoms)
        names = {name.text: bottom for name, bottom in zip(self.traced.inputs, bottoms, strict=True)}
        return Writer(self.traced, names, home, taken).write()

    def _called(self, home: str, bottoms: Sequence[str]) -> tuple[list[str], list[str]]:
        tops = len(self.layer.tops)
        if self.bundle is None and tops == len(bottoms):
            return [], [f"{home}({bottom})" for bottom in bottoms]
        call = f"{home}({', '.join(bottoms)})"
        return [], [call] if tops == 1 and not self.gives_tuple else [f"{call}[{index}]" for index in range(tops)]

    def looks(self) -> tuple[object, ...]:
        """Return what makes two pieces the same but for the numbers they learned."""
        lines = self.statements("self.it", [f"x{index}" for index in range(len(self.layer.bottoms))], set())
        constants = dict(self.traced.constants) if self.traced else {}
        return (self.made, lines, {name: (tensor.shape, tensor.tolist()) for name, tensor in constants.items()})


def piece(layer: Layer, module: nn.Module, path: str, shapes: Sequence[Shape], symbolic: tuple[int, ...]) -> Piece:
    """Write one layer: as a class of torch.nn where there is one, else by what it does, else with its own source.

    Sizes along the `symbolic` axes stay open. UnsupportedError where none of these can be.
    """
    stock = stock_expression(module, len(shapes[0]) if shapes else 0)
    if stock is not None:
        return Piece(layer, path, stock)
    if hasattr(module, "carried"):  # a state that lives from run to run: no trace holds that
        return _bundled(layer, module, path, shapes)
    try:
        found = _trace(module, shapes, symbolic)
    except UntraceableError:
        return _bundled(layer, module, path, shapes)
    return Piece(layer, path, _holder("nn.Module()", held := _held(found, module), {}), found, held)


def _trace(module: nn.Module, shapes: Sequence[Shape], symbolic: tuple[int, ...]) -> Trace:
    """Trace with as many open sizes as the module does not go by: all, those asked for, or the batch alone."""
    for axes in (symbolic, (0,)):
        try:
            return trace(module, shapes, axes)
        except UntraceableError:
            continue
    return trace(module, shapes, ())


def _held(found: Trace, module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the module that the trace takes, and its constants."""
    from converters.pytorch_export.call_trace import used_names

    used = {n.text for call in found.calls for n in used_names((call.arguments, call.keywords)) if n.held}
    used |= {name.text for name in found.outputs if name.held}
    own = dict([*module.named_parameters(), *module.named_buffers()])
    return {name: tensor for name, tensor in (own | found.constants).items() if name in used}


def _bundled(layer: Layer, module: nn.Module, path: str, shapes: Sequence[Shape]) -> Piece:
    try:
        found = bundled(module)
    except UntraceableError as error:
        raise UnsupportedError(
            f"layer {layer.name!r} ({layer.type}): it cannot be written as PyTorch source: {error}"
        ) from None
    held = dict([*module.named_parameters(), *module.named_buffers()])
    made = _holder(found.expression, held, found.attributes)
    return Piece(layer, path, made, None, held, found, len(layer.tops) == 1 and _gives_tuple(module, shapes))


def _gives_tuple(module: nn.Module, shapes: Sequence[Shape]) -> bool:
    """Run a copy on zeros, as the source does not tell; where zeros are of no use it is taken to give a tensor."""
    try:
        with torch.no_grad():
            return isinstance(deepcopy(module)(*(torch.zeros(shape) for shape in shapes)), tuple)
    except Exception:  # whatever a module, which may be a plugin's, raises about its bottoms
        return False


def _holder(made: str, held: Mapping[str, Tensor], attributes: Mapping[str, str]) -> str | None:
    """Return the call that makes a module with these tensors and attributes; None where it would hold nothing."""
    if not held and not attributes:
        return None if made == "nn.Module()" else made
    parameters = {name: tensor for name, tensor in held.items() if isinstance(tensor, nn.Parameter)}
    texts = [f'"{name}": {_shape(tensor)}' for name, tensor in parameters.items()]
    buffers = [f'"{name}": {_shape(tensor)}' for name, tensor in held.items() if name not in parameters]
    arguments = [made, f"{{{', '.join(texts)}}}"] + ([f"{{{', '.join(buffers)}}}"] if buffers or attributes else [])
    return f"holding({', '.join([*arguments, *(f'{name}={text}' for name, text in attributes.items())])})"


def _shape(tensor: Tensor) -> str:
    if tensor.dtype == torch.float32:
        return literal(tuple(tensor.shape))
    return f"({literal(tuple(tensor.shape))}, {tensor.dtype})"
