"""Models from elsewhere: what their libraries raise on a damaged or hostile file, in one sentence of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError

_MOST = 200


@contextmanager
def opening(path: Path, what: str = "a model that prototxt-gen wrote") -> Iterator[None]:
    """Turn whatever reading a model's file raises into a PrototxtGenError that names it.

    protobuf, ONNX Runtime, zipfile, json and torch.export raise kinds without a common base, and on damaged files also
    KeyError, UnicodeDecodeError or AssertionError from within.
    """
    try:
        yield
    except PrototxtGenError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        told = f"{type(error).__name__}: {said[:_MOST]}{'…' if len(said) > _MOST else ''}" if said else repr(error)
        raise PrototxtGenError(f"{path}: damaged, or not {what} ({told})") from None
