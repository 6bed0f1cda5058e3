"""A user's own layer types: a Python file whose LayerType subclasses register themselves when it is run."""

from __future__ import annotations

import importlib.util
import sys
from os import PathLike
from pathlib import Path

from prototxt_gen import layers
from prototxt_gen.common.errors import PrototxtGenError


def load(path: str | PathLike[str]) -> list[str]:
    """Run the file; return the names of the layer types that it adds.

    PrototxtGenError where it cannot be read, where it stops with an error of its own, or where it adds no type.
    """
    file = Path(path).resolve()
    before = set(layers.all_layer_types())
    spec = importlib.util.spec_from_file_location(f"prototxt_gen_plugin_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise PrototxtGenError(f"{path}: no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that classes of the file can be pickled and inspected
    try:
        spec.loader.exec_module(module)
    except PrototxtGenError as error:
        raise PrototxtGenError(f"{path}: {error}") from None
    except Exception as error:  # the user's own code: whatever it raises is to be told with its file
        raise PrototxtGenError(f"{path}: it stops with {type(error).__name__}: {error}") from error
    added = sorted(set(layers.all_layer_types()) - before)
    if not added:
        raise PrototxtGenError(f"{path}: it adds no layer type; write a subclass of prototxt_gen.layers.base.LayerType")
    return added
