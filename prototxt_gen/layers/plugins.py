"""Plugins: Python files of a user that define more layer types, as subclasses of `LayerType`."""

from __future__ import annotations

import importlib.util
import sys
from os import PathLike
from pathlib import Path

from prototxt_gen import layers
from prototxt_gen.common.errors import PrototxtGenError


def load(path: str | PathLike[str]) -> list[str]:
    """Run a Python file and return the names of the layer types that it registers.

    Raises PrototxtGenError if the file cannot be read, if running it raises an error, or if it registers no layer type.
    """
    file = Path(path).resolve()
    before = set(layers.all_layer_types())
    spec = importlib.util.spec_from_file_location(f"prototxt_gen_plugin_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise PrototxtGenError(f"{path}: it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pickle and inspect look up the classes of the file there
    try:
        spec.loader.exec_module(module)
    except PrototxtGenError as error:
        raise PrototxtGenError(f"{path}: {error}") from None
    except Exception as error:  # the user's code may raise anything; the message names the file
        raise PrototxtGenError(f"{path}: running it failed with {type(error).__name__}: {error}") from error
    added = sorted(set(layers.all_layer_types()) - before)
    if not added:
        raise PrototxtGenError(
            f"{path}: it defines no layer type; define a subclass of prototxt_gen.layers.base.LayerType"
        )
    return added
