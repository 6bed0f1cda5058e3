"""Self-contained source of a module that can neither be written as torch.nn nor traced.

The source includes the functions and classes of our packages that the module's class uses. Values from outside the
class, such as a layer's parameters, become constants.
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
from converters.pytorch_export.source_analysis import (
    OUR_PACKAGES,
    AnnotationAndImportRemover,
    ModulePrefixRemover,
    free_names,
)
from converters.pytorch_export.trace_to_source import python_literal
from prototxt_gen.ir import Layer
from prototxt_gen.layers.base import LayerType
from prototxt_gen.schema.message import Message


@dataclass
class SelfContainedSource:
    """Source of a module that imports none of our packages.

    `expression`: makes the module. `attributes`: the module's attributes as Python. `definitions`: classes, functions
    and constants by name, each after those that it needs. `imports`: import statements. `needs_layer_parameters`: the
    source uses the classes in `source_snippets.LAYER_PARAMETERS`.
    """

    expression: str
    attributes: dict[str, str]
    definitions: dict[str, str] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)
    needs_layer_parameters: bool = False


def self_contained_source(module: nn.Module) -> SelfContainedSource:
    """Return the source of a module's class with all that it needs. Raises UntraceableError if that is impossible."""
    collector = _SourceCollector()
    expression = collector.constructor(type(module))
    own = {name: value for name, value in vars(module).items() if name not in vars(nn.Module())}
    attributes = {name: collector.constant(value) for name, value in own.items()}
    collector.source.expression, collector.source.attributes = expression, attributes
    return collector.source


class _SourceCollector:
    """Collects definitions in `source`.

    In its methods, `globals_` and `closure` are the values of the names around a definition: those of its module, and
    those of the function that defines it. `constants` collects values that become arguments.
    """

    def __init__(self) -> None:
        self.source = SelfContainedSource("", {})
        self.message_types: dict[str, type[Message]] = {}
        """The parameter messages that the source reads from a layer."""

    def constructor(self, class_: type) -> str:
        """Add a class; return the call that makes an instance. A class with constants is defined by a function."""
        constants: dict[str, Any] = {}
        text = self.class_text(class_, constants)
        if not constants:
            self.source.definitions[class_.__name__] = text
            return f"{class_.__name__}()"
        maker = f"make_{class_.__name__}"
        body = textwrap.indent(text, "    ")
        self.source.definitions[maker] = (
            f"def {maker}({', '.join(constants)}):\n{body}\n\n    return {class_.__name__}()\n"
        )
        arguments = [f"{name}={self.constant(value)}" for name, value in constants.items()]
        return f"{maker}({', '.join(arguments)})"

    def class_text(self, class_: type, constants: dict[str, Any]) -> str:
        """Return the source of a class without its constructor."""
        tree = _syntax_tree(class_)
        assert isinstance(tree, ast.ClassDef)
        tree.body = [node for node in tree.body if getattr(node, "name", "") != "__init__"] or [ast.Pass()]
        tree.bases = [ast.parse(self._base_class(base), mode="eval").body for base in class_.__bases__]
        globals_: dict[str, Any] = {}
        closure: dict[str, Any] = {}
        for value in vars(class_).values():
            function = inspect.unwrap(value) if callable(value) else value
            if isinstance(function, FunctionType):
                globals_ |= function.__globals__
                closure |= _closure_values(function)
        return self._resolved_text(tree, globals_, closure, constants)

    def _base_class(self, base: type) -> str:
        """Return a base class as Python; add it if it is one of ours."""
        if base.__module__.startswith("torch.nn."):
            return f"nn.{base.__name__}"
        if base is object:
            return "object"
        if base.__name__ not in self.source.definitions:
            constants: dict[str, Any] = {}
            text = self.class_text(base, constants)
            if constants:
                raise UntraceableError(f"its base class {base.__name__} uses values from outside the class")
            self.source.definitions[base.__name__] = text
        return base.__name__

    def add_function(self, function: FunctionType) -> None:
        if function.__name__ in self.source.definitions:
            return
        self.source.definitions[function.__name__] = ""  # it may call itself
        constants: dict[str, Any] = {}
        text = self._resolved_text(_syntax_tree(function), function.__globals__, _closure_values(function), constants)
        if constants:
            raise UntraceableError(f"{function.__name__} uses {', '.join(constants)} from outside the function")
        del self.source.definitions[function.__name__]
        self.source.definitions[function.__name__] = text

    def _resolved_text(
        self, tree: ast.AST, globals_: Mapping[str, Any], closure: Mapping[str, Any], constants: dict[str, Any]
    ) -> str:
        """Return the source of a tree after every name that it uses was imported, defined or added to `constants`."""
        remover = AnnotationAndImportRemover()
        tree = ast.fix_missing_locations(remover.visit(tree))
        globals_ = {**globals_, **remover.imported}
        while objects := ModulePrefixRemover({**globals_, **closure}).apply(tree):
            globals_ = {**globals_, **objects}
        for name in sorted(free_names(tree)):
            if name in vars(builtins):
                continue
            if isinstance(closure.get(name), LayerType):
                self._add_layer_type(name, closure[name], tree, constants)
            elif name in closure:
                self._add_value(name, closure[name], constants)
            elif name in globals_:
                self._add_value(name, globals_[name], None)
        return ast.unparse(tree)

    def _add_layer_type(self, name: str, layer_type: LayerType, tree: ast.AST, constants: dict[str, Any]) -> None:
        """Add a class with the methods of a layer type that the tree calls, directly or through other methods."""
        methods: dict[str, str] = {}
        pending = _attributes_of(name, tree)
        while pending:
            method = pending.pop()
            function = getattr(type(layer_type), method)
            method_tree = _syntax_tree(function)
            pending += [n for n in _attributes_of("self", method_tree) if n not in methods and n != method]
            methods[method] = self._resolved_text(
                method_tree, function.__globals__, _closure_values(function), constants
            )
        body = textwrap.indent("\n\n".join(methods.values()), "    ")
        self.source.definitions[type(layer_type).__name__] = f"class {type(layer_type).__name__}:\n{body}\n"
        constants[name] = layer_type

    def _add_value(self, name: str, value: Any, constants: dict[str, Any] | None) -> None:
        """Import or define a name. `constants` is None for a name of a module, which is defined once for the file."""
        if isinstance(value, ModuleType):
            if _is_from_our_packages(value.__name__):
                raise UntraceableError(f"it uses the module {value.__name__} as a whole")
            self.source.imports.add(_module_import(value.__name__, name))
        elif isinstance(value, type) and issubclass(value, Message):
            self.message_types[name] = value
            self.source.definitions[name] = f'{name} = "{value.__name__}"\n'
        elif isinstance(value, FunctionType) and _is_from_our_packages(value.__module__):
            self.add_function(value)
        elif isinstance(value, type) and _is_from_our_packages(value.__module__):
            self._base_class(value)
        elif isinstance(value, (type, FunctionType)) or callable(value):
            self.source.imports.add(_object_import(value, name))
        elif constants is None and _is_constant(value):
            self.source.definitions[name] = f"{name} = {python_literal(value)}\n"
        elif constants is not None and _can_be_argument(value):
            constants[name] = value
        else:
            raise UntraceableError(f"it holds {name}, a {type(value).__name__}")

    def constant(self, value: Any) -> str:
        """Return a value as Python; layers and messages as the classes in `source_snippets`.

        Raises UntraceableError if the value has no such form.
        """
        if isinstance(value, Layer):
            self.source.needs_layer_parameters = True
            messages = {class_.__name__: value.get(class_) for class_ in self.message_types.values()}
            arguments = [f"{name}={self.constant(message)}" for name, message in messages.items()]
            return f"LayerParameters({', '.join([repr(value.name), repr(value.type), *arguments])})"
        if isinstance(value, Message):
            self.source.needs_layer_parameters = True
            fields = [f"{name}={self.constant(getattr(value, name))}" for name in type(value).fields]
            set_names = repr(tuple(name for name, _ in value.set_fields()))
            return f"Parameters({', '.join([set_names, *fields])})"
        if _is_constant_dataclass(value):
            self.source.needs_layer_parameters = True
            return f"Parameters({', '.join(f'{name}={self.constant(field)}' for name, field in vars(value).items())})"
        if isinstance(value, LayerType):
            return f"{type(value).__name__}()"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{self.constant(k)}: {self.constant(v)}' for k, v in value.items())}}}"
        if isinstance(value, (tuple, list)) and any(isinstance(item, Message) for item in value):
            return f"({', '.join(map(self.constant, value))},)"
        try:
            return python_literal(value)
        except TypeError:
            raise UntraceableError(f"it holds a {type(value).__name__}") from None


def _attributes_of(name: str, tree: ast.AST) -> list[str]:
    """Return the attributes `x` of all expressions `name.x` in a tree."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    attributes = (node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == name)
    return list(dict.fromkeys(attributes))


def _is_from_our_packages(module_name: str) -> bool:
    return module_name.split(".")[0] in OUR_PACKAGES


def _is_constant(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_constant, value))
    return value is None or isinstance(value, (int, float, str, torch.dtype)) or value is math.inf


def _can_be_argument(value: Any) -> bool:
    return isinstance(value, (Layer, Message)) or _is_constant(value) or _is_constant_dataclass(value)


def _is_constant_dataclass(value: Any) -> bool:
    """Whether a value is an instance of a dataclass of ours with constant fields. Its methods are not written."""
    if not is_dataclass(value) or isinstance(value, (type, Layer)):
        return False
    return _is_from_our_packages(type(value).__module__) and all(map(_is_constant, vars(value).values()))


def _syntax_tree(definition: Callable[..., Any] | type) -> ast.AST:
    try:
        source = textwrap.dedent(inspect.getsource(definition))
    except (OSError, TypeError):
        raise UntraceableError(f"the source of {definition.__name__} cannot be found") from None
    return ast.parse(source).body[0]


def _closure_values(function: FunctionType) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if name != "__class__" and _is_filled(cell)}


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not ...
    except ValueError:  # the variable has no value yet
        return False


def _module_import(module: str, name: str) -> str:
    """Return the statement that imports a module as `name`."""
    if module == name:
        return f"import {module}"
    parent, _, last = module.rpartition(".")
    if parent and last == name:
        return f"from {parent} import {name}"
    return f"import {module} as {name}"


def _object_import(value: Any, name: str) -> str:
    """Return the statement that imports a class or function as `name`."""
    module, own_name = getattr(value, "__module__", ""), getattr(value, "__name__", "")
    if not module or _is_from_our_packages(module) or not own_name:
        raise UntraceableError(f"it uses {name}, which cannot be imported")
    return f"from {module} import {own_name}" + ("" if own_name == name else f" as {name}")
