"""The names that users import: `from prototxt_gen import …`, and the older paths that files and documents contain."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest

import prototxt_gen

ROOT = Path(prototxt_gen.__file__).parent
OLDER_PATHS = {
    "converters": ("read_subject", "to_onnx", "to_torch", "verify"),
    "converters.graph": ("Graph",),
    "prototxt_gen.ir": ("Layer", "Net", "Shape", "Value"),
    "prototxt_gen.layers.base": ("Arity", "BlobSpec", "LayerType", "exactly"),
    "prototxt_gen.layers.example": ("Example", "literal"),
    "prototxt_gen.layers.neuron": ("Neuron", "elementwise"),
    "prototxt_gen.message": (
        "Message",
        "boolean",
        "enum",
        "float32",
        "int32",
        "message",
        "repeated",
        "string",
        "uint32",
    ),
}
"""Import paths that README.md or CONTRIBUTING.md have shown at some time."""


@pytest.mark.parametrize("name", prototxt_gen.__all__)
def test_a_public_name_is_listed_and_imports(name: str) -> None:
    assert name in dir(prototxt_gen)
    assert getattr(prototxt_gen, name) is not None


def test_no_public_name_is_a_folder_or_module() -> None:
    """`prototxt_gen.train` is a package, so the function is train_net."""
    modules = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules.isdisjoint(prototxt_gen.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train_nets'"):
        _ = prototxt_gen.train_nets


@pytest.mark.parametrize(
    "name", ["build", "check_net", "draw_net", "read_net", "to_onnx", "to_torch", "train_net", "verify"]
)
def test_signatures_are_typed(name: str) -> None:
    """Every parameter has a type; only `build`, whose changes depend on the model, takes further keywords."""
    parameters = inspect.signature(getattr(prototxt_gen, name)).parameters.values()
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters)
    assert name == "build" or not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in OLDER_PATHS.items() for name in names]
)
def test_an_older_path_still_imports(module: str, name: str) -> None:
    assert hasattr(import_module(module), name)
