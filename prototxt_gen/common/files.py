"""Safe writing of output files.

A regular file is written under a temporary name in its folder and then renamed, so that it is never half written. A
symbolic link stays: the file that it points to is written. A FIFO, a device or an open file of this process
(/dev/stdout, /dev/fd/3) is never replaced: the finished content is copied into it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from prototxt_gen.common.errors import PrototxtGenError

STDOUT = Path("/dev/stdout")
"""The path that stands for this process's standard output, on every system; `-o -` in the command line."""
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MAX_LINKS = 40
"""Number of symbolic links that Linux follows in one path."""
_MAX_PREFIX_BYTES = 100


def refuse_overwriting(paths: list[Path], force: bool) -> None:
    """Raise PrototxtGenError if any of the files exists, unless `force`.

    A FIFO, a character device and an open file of this process are no error: nothing in them is lost.
    """
    existing = [str(path) for path in paths if path.exists() and not _loses_nothing(path)]
    if existing and not force:
        raise PrototxtGenError(f"{', '.join(existing)}: already exists; use --force to overwrite")


def is_written_directly(path: Path) -> bool:
    """Whether the path exists and is no regular file and no folder, so that content is copied into it."""
    return _open_descriptor(path) is not None or not (_mode(path) == 0 or _is_file_or_folder(_mode(path)))


def followed(path: Path) -> Path:
    """Return the path that a symbolic link points to in the end, which need not exist; other paths are returned.

    Raises OSError for a circle of links.
    """
    target = path
    for _ in range(_MAX_LINKS + 1):
        if not target.is_symlink():
            return target
        target = target.parent / target.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


@contextmanager
def replacing(path: str | PathLike[str], force: bool = True) -> Iterator[Path]:
    """Context manager that yields a temporary path, and moves it to the target if the block ends without an error.

    The temporary file exists and is empty. Open it with mode `r+b`: a file opened with `wb` is flushed to the disk when
    it is closed, on ext4 at least, which takes long. Raises PrototxtGenError if the folder cannot be written, or if the
    target exists and `force` is false.
    """
    target = Path(path)
    refuse_overwriting([target], force)
    with writing_errors(target):
        handle, name = tempfile.mkstemp(prefix=temporary_prefix(target), suffix=".tmp", dir=temporary_folder(target))
        os.close(handle)
    temporary = Path(name)
    try:
        with writing_errors(target):
            yield temporary
            move_into_place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_errors(target: Path) -> Iterator[None]:
    """Context manager that turns an OSError into a PrototxtGenError that names the target."""
    try:
        yield
    except OSError as error:
        raise PrototxtGenError(f"{target}: cannot be written: {error.strerror or error}") from None


def temporary_folder(target: Path) -> Path | None:
    """Return the folder for the temporary file of a target, which is created; None for the system's own folder."""
    if is_written_directly(target):
        return None
    folder = followed(target).parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def temporary_prefix(target: Path) -> str:
    """Return the beginning of a temporary file's name; a long name of the target is cut."""
    return "." + target.name.encode("utf-8", "surrogateescape")[:_MAX_PREFIX_BYTES].decode("utf-8", "ignore") + "."


def move_into_place(file: Path, target: Path) -> None:
    """Make a finished file the content of `target`, with the mode of the file there, or a new file's mode.

    Raises OSError.
    """
    if is_written_directly(target):
        with file.open("rb") as content, _open_directly(target) as stream:
            shutil.copyfileobj(content, stream)
        return
    real = followed(target)
    real.parent.mkdir(parents=True, exist_ok=True)
    file.chmod(_mode(real) & 0o777 or 0o666 & ~_umask())
    try:
        file.replace(real)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(real) as beside:  # a link to another file system
            shutil.copyfile(file, beside)


@contextmanager
def _open_directly(target: Path) -> Iterator[BinaryIO]:
    """Open a FIFO, a device or an open file for writing, without creating or truncating a file."""
    descriptor = _open_descriptor(target)
    if descriptor is None:
        with os.fdopen(os.open(target, os.O_WRONLY | getattr(os, "O_NOCTTY", 0)), "wb") as stream:
            yield stream
        return
    standard = {1: sys.stdout, 2: sys.stderr}.get(descriptor)
    if standard is None or not hasattr(standard, "buffer"):
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            yield stream
        return
    standard.flush()
    yield standard.buffer
    standard.buffer.flush()


def _open_descriptor(path: Path) -> int | None:
    """Return the number of the open file of this process that a path means, also through links; None for others."""
    for _ in range(_MAX_LINKS + 1):
        text = path.as_posix()
        found = re.fullmatch(rf"(?:/dev/fd|/proc/(?:self|thread-self|{os.getpid()})/fd)/(\d+)", text)
        if found or text in _STREAMS:
            return int(found[1]) if found else _STREAMS[text]
        if not path.is_symlink():
            break
        path = Path(os.path.normpath(path.parent / path.readlink()))
    return None


def _loses_nothing(path: Path) -> bool:
    """Whether writing to an existing path destroys no content; a block device has content."""
    return is_written_directly(path) and (_open_descriptor(path) is not None or not stat.S_ISBLK(_mode(path)))


def _mode(path: Path) -> int:
    """Return type and permissions of the file that a path leads to; 0 if there is none."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _is_file_or_folder(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | PathLike[str], text: str, force: bool = True) -> None:
    """Write a text file in UTF-8; for `force` and errors see `replacing`."""
    with replacing(path, force) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
