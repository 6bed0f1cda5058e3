"""Analysis of Python source: free names of a definition, and removal of annotations and of our own imports."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from converters.pytorch_export.call_trace import UntraceableError

OUR_PACKAGES = ("prototxt_gen", "converters", "__main__")
"""Packages that a written model.py must not import."""


class AnnotationAndImportRemover(ast.NodeTransformer):
    """Removes annotations and imports of our packages; `imported` holds the objects of these imports by name."""

    def __init__(self) -> None:
        self.imported: dict[str, Any] = {}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        if node.module is None or node.module.split(".")[0] not in OUR_PACKAGES:
            return node
        module = __import__(node.module, fromlist=[alias.name for alias in node.names])
        for alias in node.names:
            self.imported[alias.asname or alias.name] = getattr(module, alias.name)
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        for argument in [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]:
            argument.annotation = None
        for starred in (node.args.vararg, node.args.kwarg):
            if starred is not None:
                starred.annotation = None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        return ast.Assign([node.target], node.value) if node.value is not None else None


class ModulePrefixRemover(ast.NodeTransformer):
    """Replaces `module.name` by `name` where the module is one of ours; `objects` holds these objects by name.

    `variables`: the values of names that the source can use.
    """

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self.variables = variables
        self.objects: dict[str, Any] = {}

    def apply(self, tree: ast.AST) -> dict[str, Any]:
        """Change the tree; return `objects`. Raises UntraceableError if a name would then have two meanings."""
        bound = set(bound_names(tree))
        self.visit(tree)
        if clash := bound & set(self.objects):
            raise UntraceableError(f"{min(clash)} is the name of two things in its source")
        return self.objects

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        value = self.variables.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if isinstance(value, ModuleType) and value.__name__.split(".")[0] in OUR_PACKAGES:
            self.objects[node.attr] = getattr(value, node.attr)
            return ast.copy_location(ast.Name(node.attr, node.ctx), node)
        return node


def free_names(tree: ast.AST) -> set[str]:
    """Return the names that a definition uses but does not define itself, by Python's scoping rules."""
    table = symtable.symtable(ast.unparse(tree), "source", "exec")
    defined = {getattr(tree, "name", "")}
    return set(_global_names(table)) - defined


def _global_names(table: symtable.SymbolTable) -> Iterator[str]:
    inner = table.get_type() != "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() if inner else not symbol.is_assigned()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _global_names(child)


def bound_names(tree: ast.AST) -> Iterator[str]:
    """Yield all names that are assigned, defined or imported anywhere in a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node is not tree:
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
