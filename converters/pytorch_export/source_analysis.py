"""Python source taken apart: what a definition needs from around it, and what of ours is to be taken out of it."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from converters.pytorch_export.call_trace import UntraceableError

OURS = ("prototxt_gen", "converters", "__main__")
"""Packages that a written model.py must not import."""


class Localiser(ast.NodeTransformer):
    """Takes annotations and imports of ours out of the source; `modules` are what those imports named."""

    def __init__(self) -> None:
        self.modules: dict[str, Any] = {}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        if node.module is None or node.module.split(".")[0] not in OURS:
            return node
        module = __import__(node.module, fromlist=[alias.name for alias in node.names])
        for alias in node.names:
            self.modules[alias.asname or alias.name] = getattr(module, alias.name)
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        for argument in [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]:
            argument.annotation = None
        for rest in (node.args.vararg, node.args.kwarg):
            if rest is not None:
                rest.annotation = None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        return ast.Assign([node.target], node.value) if node.value is not None else None


class Flattener(ast.NodeTransformer):
    """Writes `module.name` of our modules as `name`."""

    def __init__(self, around: Mapping[str, Any]) -> None:
        self.around = around
        self.found: dict[str, Any] = {}

    def apply(self, tree: ast.AST) -> dict[str, Any]:
        bound = set(bound_names(tree))
        self.visit(tree)
        if clash := bound & set(self.found):
            raise UntraceableError(f"{min(clash)} is the name of two things in its source")
        return self.found

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        value = self.around.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if isinstance(value, ModuleType) and value.__name__.split(".")[0] in OURS:
            self.found[node.attr] = getattr(value, node.attr)
            return ast.copy_location(ast.Name(node.attr, node.ctx), node)
        return node


def free_names(tree: ast.AST) -> set[str]:
    """Return the names that the source of a definition takes from around it, each scope by Python's own rules."""
    table = symtable.symtable(ast.unparse(tree), "source", "exec")
    defined = {getattr(tree, "name", "")}
    return set(_globals_of(table)) - defined


def _globals_of(table: symtable.SymbolTable) -> Iterator[str]:
    inner = table.get_type() != "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() if inner else not symbol.is_assigned()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _globals_of(child)


def bound_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node is not tree:
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
