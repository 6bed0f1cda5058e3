"""Writing files so that nothing is lost: to a temporary name beside the target, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError


def refuse_overwriting(paths: list[Path], force: bool) -> None:
    """Raise an error naming the files that are there already, unless `force`."""
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise PrototxtGenError(f"{', '.join(there)}: there already; --force overwrites")


@contextmanager
def replacing(path: str | PathLike[str], force: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; rename it to the target if the block ends without an error.

    The file is there, empty. Open it to be changed (`r+b`): one that was cut to nothing is written out to the disk when
    it is closed, by ext4 at least, which takes longer than all else. PrototxtGenError where the folder cannot be
    written, or where the target is there and `force` is not given.
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
    """Write UTF-8 text; see `replacing`."""
    with replacing(path, force) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
