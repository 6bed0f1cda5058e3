"""Safe writing of files: to a temporary file in the same folder, which then replaces the target."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError


def refuse_overwriting(paths: list[Path], force: bool) -> None:
    """Raise PrototxtGenError if any of the files exists, unless `force`."""
    existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        raise PrototxtGenError(f"{', '.join(existing)}: already exists; use --force to overwrite")


@contextmanager
def replacing(path: str | PathLike[str], force: bool = True) -> Iterator[Path]:
    """Context manager that yields a temporary path, and renames it to the target if the block ends without an error.

    The temporary file exists and is empty. Open it with mode `r+b`: a file opened with `wb` is flushed to the disk when
    it is closed, on ext4 at least, which takes long. Raises PrototxtGenError if the folder cannot be written, or if the
    target exists and `force` is false.
    """
    target = Path(path)
    refuse_overwriting([target], force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise PrototxtGenError(f"{target}: cannot be written: {error.strerror or error}") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise PrototxtGenError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | PathLike[str], text: str, force: bool = True) -> None:
    """Write a text file in UTF-8; for `force` and errors see `replacing`."""
    with replacing(path, force) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
