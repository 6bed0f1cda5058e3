"""Errors of other libraries about damaged model files, turned into one PrototxtGenError that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError

_MAX_MESSAGE_LENGTH = 200


@contextmanager
def translate_loading_errors(path: Path, expected: str = "a model that prototxt-gen wrote") -> Iterator[None]:
    """Turn any error that is raised while `path` is read into a PrototxtGenError that names `path`.

    protobuf, ONNX Runtime, zipfile, json and torch.export raise errors without a common base class; on damaged files
    they also raise KeyError, UnicodeDecodeError or AssertionError. `expected` says what the file should be.
    """
    try:
        yield
    except PrototxtGenError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())
        short = f"{message[:_MAX_MESSAGE_LENGTH]}{'…' if len(message) > _MAX_MESSAGE_LENGTH else ''}"
        detail = f"{type(error).__name__}: {short}" if message else repr(error)
        raise PrototxtGenError(f"{path}: damaged, or not {expected} ({detail})") from None
