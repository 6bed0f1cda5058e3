"""Modules of ours that torch's functions cannot be told from by looking on: their own source, made to stand alone.

Taken along are the functions and classes of ours that it calls; what it holds from outside, such as a layer's
parameters, becomes arguments written out as constants.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

from converters.pytorch_export.call_trace import UntraceableError
from converters.pytorch_export.source_analysis import OURS, Flattener, Localiser, free_names
from converters.pytorch_export.trace_to_source import literal
from prototxt_gen.ir import Layer
from prototxt_gen.layers.base import LayerType
from prototxt_gen.schema.message import Message


@dataclass
class Bundle:
    """Source that stands alone: definitions by name in the order they are needed, and how the module is made."""

    expression: str
    attributes: dict[str, str]
    definitions: dict[str, str] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)
    stubs: bool = False


def bundled(module: nn.Module) -> Bundle:
    """Return the source of a module's class with all it needs. UntraceableError where it cannot stand alone."""
    bundler = _Bundler()
    expression = bundler.instance(type(module))
    own = {name: value for name, value in vars(module).items() if name not in vars(nn.Module())}
    attributes = {name: bundler.constant(value) for name, value in own.items()}
    bundler.bundle.expression, bundler.bundle.attributes = expression, attributes
    return bundler.bundle


class _Bundler:
    def __init__(self) -> None:
        self.bundle = Bundle("", {})
        self.kinds: dict[str, type[Message]] = {}
        """The messages that the source asks a layer for."""

    def instance(self, kind: type) -> str:
        """Define a class, inside a function if it holds constants from outside; return the call that makes it."""
        constants: dict[str, Any] = {}
        text = self.define_class(kind, constants)
        if not constants:
            self.bundle.definitions[kind.__name__] = text
            return f"{kind.__name__}()"
        maker = f"make_{kind.__name__}"
        inner = textwrap.indent(text, "    ")
        self.bundle.definitions[maker] = (
            f"def {maker}({', '.join(constants)}):\n{inner}\n\n    return {kind.__name__}()\n"
        )
        given = [f"{name}={self.constant(value)}" for name, value in constants.items()]
        return f"{maker}({', '.join(given)})"

    def define_class(self, kind: type, constants: dict[str, Any]) -> str:
        """Return the source of a class without its constructor; what it takes from around it goes to `constants`."""
        tree = _parsed(kind)
        assert isinstance(tree, ast.ClassDef)
        tree.body = [node for node in tree.body if getattr(node, "name", "") != "__init__"] or [ast.Pass()]
        tree.bases = [ast.parse(self._base(base), mode="eval").body for base in kind.__bases__]
        around: dict[str, Any] = {}
        inner: dict[str, Any] = {}
        for value in vars(kind).values():
            function = inspect.unwrap(value) if callable(value) else value
            if isinstance(function, FunctionType):
                around |= function.__globals__
                inner |= _closure(function)
        return self._closed(tree, around, inner, constants)

    def _base(self, base: type) -> str:
        if base.__module__.startswith("torch.nn."):
            return f"nn.{base.__name__}"
        if base is object:
            return "object"
        if base.__name__ not in self.bundle.definitions:
            constants: dict[str, Any] = {}
            text = self.define_class(base, constants)
            if constants:
                raise UntraceableError(f"its base {base.__name__} takes constants from around it")
            self.bundle.definitions[base.__name__] = text
        return base.__name__

    def define_function(self, function: FunctionType) -> None:
        if function.__name__ in self.bundle.definitions:
            return
        self.bundle.definitions[function.__name__] = ""  # it may call itself
        constants: dict[str, Any] = {}
        text = self._closed(_parsed(function), function.__globals__, _closure(function), constants)
        if constants:
            raise UntraceableError(f"{function.__name__} takes {', '.join(constants)} from around it")
        del self.bundle.definitions[function.__name__]
        self.bundle.definitions[function.__name__] = text

    def _closed(
        self, tree: ast.AST, around: Mapping[str, Any], closure: Mapping[str, Any], constants: dict[str, Any]
    ) -> str:
        """Return the source with every name in it provided for: imported, defined, or among `constants`."""
        local = Localiser()
        tree = ast.fix_missing_locations(local.visit(tree))
        around = {**around, **local.modules}
        while flat := Flattener({**around, **closure}).apply(tree):
            around = {**around, **flat}
        for name in sorted(free_names(tree)):
            if name in vars(builtins):
                continue
            if isinstance(closure.get(name), LayerType):
                self._layer_type(name, closure[name], tree, constants)
            elif name in closure:
                self._provide(name, closure[name], constants)
            elif name in around:
                self._provide(name, around[name], None)
        return ast.unparse(tree)

    def _layer_type(self, name: str, layer_type: LayerType, tree: ast.AST, constants: dict[str, Any]) -> None:
        """Define a class with the methods of a layer type that the source uses, directly or through each other."""
        methods: dict[str, str] = {}
        wanted = _attributes_of(name, tree)
        while wanted:
            method = wanted.pop()
            function = getattr(type(layer_type), method)
            parsed = _parsed(function)
            wanted += [n for n in _attributes_of("self", parsed) if n not in methods and n != method]
            methods[method] = self._closed(parsed, function.__globals__, _closure(function), constants)
        inside = textwrap.indent("\n\n".join(methods.values()), "    ")
        self.bundle.definitions[type(layer_type).__name__] = f"class {type(layer_type).__name__}:\n{inside}\n"
        constants[name] = layer_type

    def _provide(self, name: str, value: Any, constants: dict[str, Any] | None) -> None:
        """`constants` is None for a name of a module, which can stand beside what uses it."""
        if isinstance(value, ModuleType):
            if value.__name__.split(".")[0] in OURS:
                raise UntraceableError(f"it uses the module {value.__name__} as a whole")
            self.bundle.imports.add(_import(value.__name__, name))
        elif isinstance(value, type) and issubclass(value, Message):
            self.kinds[name] = value
            self.bundle.definitions[name] = f'{name} = "{value.__name__}"\n'
        elif isinstance(value, FunctionType) and value.__module__.split(".")[0] in OURS:
            self.define_function(value)
        elif isinstance(value, type) and value.__module__.split(".")[0] in OURS:
            self._base(value)
        elif isinstance(value, (type, FunctionType)) or callable(value):
            self.bundle.imports.add(_import_from(value, name))
        elif constants is None and _is_plain(value):
            self.bundle.definitions[name] = f"{name} = {literal(value)}\n"
        elif constants is not None and _can_be_written(value):
            constants[name] = value
        else:
            raise UntraceableError(f"it holds {name}, a {type(value).__name__}")

    def constant(self, value: Any) -> str:
        """Return a value as Python; layers and messages as the stubs in `snippets`."""
        if isinstance(value, Layer):
            self.bundle.stubs = True
            named = {kind.__name__: value.get(kind) for kind in self.kinds.values()}
            inside = [f"{name}={self.constant(message)}" for name, message in named.items()]
            return f"LayerParameters({', '.join([repr(value.name), repr(value.type), *inside])})"
        if isinstance(value, Message):
            self.bundle.stubs = True
            fields = [f"{name}={self.constant(getattr(value, name))}" for name in type(value).fields]
            known = repr(tuple(name for name, _ in value.set_fields()))
            return f"Parameters({', '.join([known, *fields])})"
        if _is_record(value):
            self.bundle.stubs = True
            return f"Parameters({', '.join(f'{name}={self.constant(field)}' for name, field in vars(value).items())})"
        if isinstance(value, LayerType):
            return f"{type(value).__name__}()"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{self.constant(k)}: {self.constant(v)}' for k, v in value.items())}}}"
        if isinstance(value, (tuple, list)) and any(isinstance(one, Message) for one in value):
            return f"({', '.join(map(self.constant, value))},)"
        try:
            return literal(value)
        except TypeError:
            raise UntraceableError(f"it holds a {type(value).__name__}") from None


def _attributes_of(name: str, tree: ast.AST) -> list[str]:
    """Return the attributes that are read of a name."""
    reads = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    own = (node.attr for node in reads if isinstance(node.value, ast.Name) and node.value.id == name)
    return list(dict.fromkeys(own))


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (int, float, str, torch.dtype)) or value is math.inf


def _can_be_written(value: Any) -> bool:
    return isinstance(value, (Layer, Message)) or _is_plain(value) or _is_record(value)


def _is_record(value: Any) -> bool:
    """Whether a value is a data class of ours that only holds constants; what uses it may not call its methods."""
    ours = is_dataclass(value) and not isinstance(value, (type, Layer)) and type(value).__module__.split(".")[0] in OURS
    return ours and all(map(_is_plain, vars(value).values()))


def _parsed(kind: Callable[..., Any] | type) -> ast.AST:
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        raise UntraceableError(f"the source of {kind.__name__} cannot be found") from None
    return ast.parse(source).body[0]


def _closure(function: FunctionType) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if name != "__class__" and _is_full(cell)}


def _is_full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not ...
    except ValueError:  # filled later than now
        return False


def _import(module: str, name: str) -> str:
    if module == name:
        return f"import {module}"
    parent, _, last = module.rpartition(".")
    if parent and last == name:
        return f"from {parent} import {name}"
    return f"import {module} as {name}"


def _import_from(value: Any, name: str) -> str:
    module, own = getattr(value, "__module__", ""), getattr(value, "__name__", "")
    if not module or module.split(".")[0] in OURS or not own:
        raise UntraceableError(f"it uses {name}, which cannot be imported")
    return f"from {module} import {own}" + ("" if own == name else f" as {name}")
