"""The house: imports point one way, heavy packages wait until they are needed, layer types say what they are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from prototxt_gen import layers
from prototxt_gen.layers.base import LayerType

ROOT = Path(__file__).parents[2]
FLOORS = (
    "errors text fields message schema ir",
    "layers",
    "builder upgrade reader solver dialect protobufs render analysis causes phases passes lowering weights "
    "caffemodel files fitting printable sharing wiring",
    "",  # whatever is not named: blocks, models, train, torch_net, data, checks, draw, pycaffe, …
    "converters",
    "evaluate demo",
    "cli __main__",
)
"""Lowest first. A part of the house imports its own floor and those below; `converters` is the package beside."""
HEAVY = ("torch", "onnx", "onnxruntime", "caffe", "google", "h5py", "lmdb", "cv2", "PIL", "matplotlib", "safetensors")
MAY_IMPORT = {
    "prototxt_gen.runtime.torch_net": {"torch"},
    "prototxt_gen.runtime.module_tree": {"torch"},
    **{
        f"prototxt_gen.train.{name}": {"torch"}
        for name in [
            "faults",
            "hardware",
            "objective",
            "optimisers",
            "processes",
            "segments",
            "sums",
            "testing",
            "torch_backend",
        ]
    },
    "prototxt_gen.net.to_protobuf": {"google"},
    "prototxt_gen.data.caffe_layer": {"caffe"},  # pycaffe imports these three, we never do
    "prototxt_gen.train.pycaffe_layers": {"caffe"},
    "prototxt_gen.real_caffe.selftest_script": {"caffe"},
}
PARTS = ("Source:", "Shape:", "Blobs:", "Differs:")
LONGEST_FILE = 300
LONGEST_TEST = 400
"""Tests are lists of cases: they may be longer."""


def files(*folders: str) -> Iterator[Path]:
    """Yield our Python files; the overlay's are those of the Caffe that is built, and import it."""
    for folder in folders:
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if "overlay" not in path.parts)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in files("prototxt_gen", "converters")}
MAY_IMPORT |= {name: {"torch"} for name in SOURCES if name.startswith("prototxt_gen.layers.modules.")}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def at_import(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the import statements that run when a module is imported."""
    for node in body:
        if isinstance(node, ast.If):
            checking = "TYPE_CHECKING" in ast.dump(node.test)
            yield from at_import(node.orelse if checking else [*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from at_import(
                [*node.body, *node.orelse, *node.finalbody, *(s for h in node.handlers for s in h.body)]
            )
        elif isinstance(node, (ast.ClassDef, ast.With)):
            yield from at_import(node.body)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node


def targets(node: ast.AST) -> Iterator[str]:
    """Yield the modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name if name in SOURCES else node.module or "" for name in inner)


@cache
def imports(module: str) -> frozenset[str]:
    return frozenset(name for node in at_import(tree(module).body) for name in targets(node))


def runs(module: str) -> frozenset[str]:
    """Return our modules that importing one runs first, with the packages they are in."""
    found = imports(module) & SOURCES.keys()
    packages = {name[:index] for name in found for index, letter in enumerate(name) if letter == "."}
    return found | {name for name in packages if not module.startswith(f"{name}.") and name != module}


def part(module: str) -> str:
    """Return the part of the house that a module is in: `prototxt_gen.layers.activation.relu` is in layers."""
    first, _, rest = module.partition(".")
    return rest.split(".")[0] if first == "prototxt_gen" else first


def floor(module: str) -> int:
    named = [index for index, names in enumerate(FLOORS) if part(module) in names.split()]
    return named[0] if named else FLOORS.index("")


def test_parts_named_are_there() -> None:
    assert {name for names in FLOORS for name in names.split()} <= {part(module) for module in SOURCES}
    assert MAY_IMPORT.keys() <= SOURCES.keys()


def test_imports_point_one_way() -> None:
    upward = [
        f"{module} imports {name}"
        for module in SOURCES
        for name in imports(module)
        if name in SOURCES and part(name) and floor(name) > floor(module)
    ]
    assert upward == []


def test_no_module_imports_itself_through_others() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for name in sorted(runs(module)):
                visit(name, (*path, module))
            done.add(module)

    for module in SOURCES:
        visit(module, ())


@cache
def reached(module: str) -> frozenset[str]:
    """Return all modules that importing one imports."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = runs(waiting.pop()) - found
        found |= new
        waiting += new
    return frozenset(found)


def heavy(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module)} & set(HEAVY)


def test_heavy_packages_are_imported_where_they_are_needed() -> None:
    early = {module: heavy(module) - MAY_IMPORT.get(module, set()) for module in SOURCES}
    assert {module: names for module, names in early.items() if names and part(module) != "converters"} == {}


def test_nothing_that_starts_reaches_a_heavy_package() -> None:
    """Commands import torch and the like when they run; layer types, when a layer is lowered."""
    parts = [name for name in SOURCES if part(name) in ("cli", "layers", "checks", "models")]
    for module in ("prototxt_gen", *(name for name in parts if name not in MAY_IMPORT)):
        assert {name: heavy(name) for name in (module, *reached(module)) if heavy(name)} == {}, module


def test_protobuf_stays_at_the_border() -> None:
    named = {name for module in SOURCES for node in ast.walk(tree(module)) for name in targets(node)}
    assert any(name.startswith("google.protobuf") for name in named)
    for module in SOURCES.keys() - {"prototxt_gen.net.to_protobuf"}:
        used = [name for node in ast.walk(tree(module)) for name in targets(node)]
        assert not any(name.startswith("google.protobuf") for name in used), module


def test_nothing_reaches_up_to_the_command_line() -> None:
    for module in SOURCES:
        if floor(module) < floor("prototxt_gen.cli"):
            used = [name for node in ast.walk(tree(module)) for name in targets(node)]
            assert not any(name.startswith("prototxt_gen.cli") for name in used), module


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import prototxt_gen"),
        ("-c", "import prototxt_gen.cli"),
        (
            "-c",
            "import prototxt_gen; prototxt_gen.Builder, prototxt_gen.read, prototxt_gen.model, prototxt_gen.net_text",
        ),
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


def layer_types() -> list[type[LayerType]]:
    return [type(layer_type) for layer_type in layers.all_layer_types().values()]


@pytest.mark.parametrize("layer_type", layer_types(), ids=lambda layer_type: str(layer_type.type))
def test_a_layer_type_says_what_it_is(layer_type: type[LayerType]) -> None:
    """A type that only spells another one's name differently says so in a line, and inherits the rest."""
    docstring = layer_type.__doc__ or ""
    assert docstring.strip().splitlines()[0].endswith((".", ":")), "its first line says what it does"
    described = [base for base in layer_type.__mro__ if all(name in (base.__doc__ or "") for name in PARTS)]
    assert [base for base in described if base is not LayerType], f"its docstring lacks one of {', '.join(PARTS)}"


@pytest.mark.parametrize(
    ("folders", "longest"), [(("prototxt_gen", "converters", "benchmarks"), LONGEST_FILE), (("tests",), LONGEST_TEST)]
)
def test_files_are_short(folders: tuple[str, ...], longest: int) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files(*folders)}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > longest} == {}


def test_contributing_shows_a_layer_type_as_it_is() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = text.partition("```python\n")[2].partition("```\n")[0]
    assert shown == (ROOT / "prototxt_gen" / "layers" / "threshold.py").read_text(encoding="utf-8")
    assert (ROOT / "tests" / "golden" / "Threshold.npz").exists()
