"""Reading pickles that contain only plain values and NumPy arrays.

A pickle can run any code. This reader allows only the functions that rebuild an array, and refuses all others by name.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from prototxt_gen.data.data_errors import DataError

_ARRAY_PARTS = {
    "_reconstruct": "multiarray",
    "scalar": "multiarray",
    "_frombuffer": "numeric",
}


class _ArrayUnpickler(pickle.Unpickler):
    """Accepts what NumPy writes for arrays (numpy.core before NumPy 2, numpy._core since), and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if name in _ARRAY_PARTS and module in (f"numpy{core}.{_ARRAY_PARTS[name]}" for core in (".core", "._core")):
            return super().find_class(module.replace("numpy.core", _core_name()), name)
        raise pickle.UnpicklingError(f"it wants to call {module}.{name}")


def load_arrays(file: Path) -> object:
    """Return the content of a pickle of plain values and arrays; strings of Python 2 are returned as bytes.

    Raises DataError for a pickle that would call any other function, without calling it.
    """
    try:
        with file.open("rb") as stream:
            return _ArrayUnpickler(stream, encoding="bytes").load()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise anything at all
        raise DataError(f"{file} is refused: {error or type(error).__name__}; only plain arrays are read") from error


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Replace _codecs.encode, which pickles of protocol 2 call for bytes, always with this encoding."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it wants the codec {encoding}")
    return text.encode("latin1")


def _core_name() -> str:
    import numpy as np

    return "numpy._core" if int(np.__version__.split(".")[0]) >= 2 else "numpy.core"
