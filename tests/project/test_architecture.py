"""The structure of the code: levels of imports, heavy packages imported late, short files, documented layer types."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import grimp
import pytest

from prototxt_gen import layers
from prototxt_gen.layers.base import LayerType
from tests.project.parts import Parts, contributing, levels, read_parts

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "onnx", "onnxruntime", "caffe", "google", "h5py", "lmdb", "cv2", "PIL", "matplotlib", "safetensors"}
IMPORT_TORCH = ("prototxt_gen.runtime.", "prototxt_gen.train.", "converters.")
"""Parts whose modules may import torch or onnx when they are imported; who uses them imports them late."""
IMPORT_CAFFE = {
    "prototxt_gen.data.augmented_data_layer",
    "prototxt_gen.train.pycaffe_layers",
    "prototxt_gen.real_caffe.selftest_script",
}
"""Only pycaffe, or a Python that has it, imports these."""
ALIASES = {"prototxt_gen.message", "converters.graph"}
"""Modules that only keep an old import path working."""
DOCSTRING_PARTS = ("Source:", "Shape:", "Blobs:", "Differs:")
LONGEST_FILE = 300
LONGEST_TEST = 400
"""Tests are lists of cases, so they may be longer."""


@pytest.fixture(scope="module")
def parts() -> Parts:
    return read_parts()


def test_imports_follow_the_levels() -> None:
    """Runs import-linter on `.importlinter`."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_part_has_a_level(parts: Parts) -> None:
    named = [part for row in levels() for part in row]
    assert len(named) == len(set(named))
    assert set(parts.names) - set(named) == ALIASES
    assert set(named) <= set(parts.names)


def test_the_levels_and_circles_would_be_noticed() -> None:
    """An upward import and a circle, put into the graph, are found."""
    graph = read_parts().graph
    graph.add_import(importer="prototxt_gen.ir.net", imported="prototxt_gen.net.builder")
    broken = Parts(graph)
    assert ("prototxt_gen.ir.net", "prototxt_gen.net.builder") in broken.upward
    assert "prototxt_gen.ir.net" in broken.circle


def test_no_upward_import_and_no_circle(parts: Parts) -> None:
    assert parts.upward == []
    assert parts.circle == []


def test_contributing_shows_the_parts_as_they_are(parts: Parts) -> None:
    assert (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8") == contributing(parts), "run 'make parts'"


def python_files(*folders: str) -> Iterator[Path]:
    """Yield our Python files. Those of the overlay belong to the Caffe that is built, and import it."""
    for folder in folders:
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if "overlay" not in path.parts)


def module_name(path: Path) -> str:
    names = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


SOURCES = {module_name(path): path for path in python_files("prototxt_gen", "converters")}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def import_statements(body: Sequence[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the import statements that run when a module is imported."""
    for node in body:
        if isinstance(node, ast.If):
            only_types = "TYPE_CHECKING" in ast.dump(node.test)
            yield from import_statements(node.orelse if only_types else [*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from import_statements([*node.body, *node.orelse, *node.finalbody, *handlers])
        elif isinstance(node, (ast.ClassDef, ast.With)):
            yield from import_statements(node.body)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node


def imported_names(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    else:
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name if name in SOURCES else node.module or "" for name in inner)


@cache
def imports(module: str) -> frozenset[str]:
    return frozenset(name for node in import_statements(tree(module).body) for name in imported_names(node))


def heavy_imports(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module)} & HEAVY


@cache
def reached(module: str) -> frozenset[str]:
    """Return all our modules that importing one imports, with the packages that they are in."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        packages = {name[:index] for index, letter in enumerate(name) if letter == "."}
        new = ((imports(name) & SOURCES.keys()) | packages) - found
        found |= new
        waiting += new
    return frozenset(found)


def is_private_module_of_layers(module: str) -> bool:
    return module.startswith("prototxt_gen.layers.") and module.rpartition(".")[2].startswith("_")


def test_heavy_packages_are_imported_where_they_are_needed() -> None:
    early = {module: heavy_imports(module) for module in SOURCES}
    for module in early:
        if module.startswith(IMPORT_TORCH) or is_private_module_of_layers(module):
            early[module] -= {"torch", "onnx", "onnxruntime", "safetensors"}
        if module in IMPORT_CAFFE:
            early[module] -= {"caffe"}
    early["prototxt_gen.net.to_protobuf"] -= {"google"}
    assert {module: names for module, names in early.items() if names} == {}


@pytest.mark.parametrize("part", ["cli", "layers", "checks", "models", "net"])
def test_nothing_that_starts_reaches_a_heavy_package(part: str) -> None:
    """Commands import torch and the like when they run; layer types, when a layer is lowered."""
    allowed = {"prototxt_gen.net.to_protobuf"}
    for module in SOURCES:
        if module.startswith(f"prototxt_gen.{part}") and not is_private_module_of_layers(module):
            early = {name: heavy_imports(name) for name in {module, *reached(module)} - allowed if heavy_imports(name)}
            assert early == {}, module


def test_protobuf_stays_at_the_border() -> None:
    users = {
        module
        for module in SOURCES
        for node in ast.walk(tree(module))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and any(name.startswith("google.protobuf") for name in imported_names(node))
    }
    assert users == {"prototxt_gen.net.to_protobuf"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import prototxt_gen"),
        ("-c", "import prototxt_gen; dir(prototxt_gen)"),
        ("-c", "import prototxt_gen.cli"),
        ("-c", "import prototxt_gen as p; p.Builder, p.read_net, p.model, p.net_text, p.check_net"),
        ("-m", "prototxt_gen", "--help"),
        ("-m", "prototxt_gen", "emit", "--help"),
        ("-m", "prototxt_gen", "summary", "--help"),
    ],
    ids=" ".join,
)
def test_starting_is_light(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys, runpy, atexit\n"
        "atexit.register(lambda: print('LOADED', *sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    run = f"exec({arguments[1]!r})" if arguments[0] == "-c" else _as_module(arguments[1:])
    done = subprocess.run([sys.executable, "-c", code + run], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.rpartition("LOADED ")[2].split())
    assert "prototxt_gen" in loaded
    assert loaded.isdisjoint({*HEAVY, "numpy", "rich"})


def _as_module(arguments: tuple[str, ...]) -> str:
    return f"sys.argv[1:] = {list(arguments[1:])!r}\nrunpy.run_module({arguments[0]!r}, run_name='__main__')"


def test_layers_do_not_import_converters(parts: Parts) -> None:
    squashed = grimp.build_graph("prototxt_gen", "converters", cache_dir=None)
    squashed.squash_module("converters")
    importers = squashed.find_modules_that_directly_import("converters")
    assert importers
    assert not any(module.startswith("prototxt_gen.layers") for module in importers)


LAYER_TYPES = [type(layer_type) for layer_type in layers.all_layer_types().values()]


@pytest.mark.parametrize("layer_type", LAYER_TYPES, ids=[layer_type.type for layer_type in LAYER_TYPES])
def test_a_layer_type_has_a_full_docstring(layer_type: type[LayerType]) -> None:
    """A type that is another spelling of one may say so in a line, and inherits the rest."""
    docstring = layer_type.__doc__ or ""
    assert docstring.strip().splitlines()[0].endswith((".", ":")), "its first line is not a sentence"
    full = [base for base in layer_type.__mro__ if all(name in (base.__doc__ or "") for name in DOCSTRING_PARTS)]
    assert [base for base in full if base is not LayerType], f"its docstring lacks one of {', '.join(DOCSTRING_PARTS)}"


@pytest.mark.parametrize(
    ("folders", "longest"), [(("prototxt_gen", "converters", "benchmarks"), LONGEST_FILE), (("tests",), LONGEST_TEST)]
)
def test_files_are_short(folders: tuple[str, ...], longest: int) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(*folders)}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > longest} == {}


def test_contributing_shows_a_layer_type_as_it_is() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = text.partition("```python\n")[2].partition("```\n")[0]
    assert shown == (ROOT / "prototxt_gen/layers/activation/threshold.py").read_text(encoding="utf-8")
    assert (ROOT / "tests" / "golden" / "Threshold.npz").exists()
