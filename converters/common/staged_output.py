"""Output files that appear all together: written in a temporary folder, verified there, and then moved."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prototxt_gen.common import files
from prototxt_gen.common.errors import PrototxtGenError


@contextmanager
def staged_output(out: Path, force: bool = False, is_folder: bool = False) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder; afterwards move all files of that folder next to `out`.

    `is_folder`: `out` is a folder, which the caller creates. If the block raises an error, no file is moved. For
    symbolic links, FIFOs, devices and stdout see `prototxt_gen.common.files`. Raises PrototxtGenError if a file exists
    and `force` is False, if `out` cannot be written, or if there is more than one file for a FIFO, a device or stdout.
    """
    files.refuse_overwriting([] if is_folder else [out], force)
    direct = files.is_written_directly(out)
    if direct and is_folder:
        raise PrototxtGenError(f"{out}: the output is a folder, and this is not one")
    with files.writing_errors(out):
        target = files.followed(out) if is_folder else out
        folder = Path(
            tempfile.mkdtemp(prefix=files.temporary_prefix(out), suffix=".tmp", dir=files.temporary_folder(out))
        )
    try:
        with files.writing_errors(out):
            yield folder / target.name
            shutil.rmtree(folder / target.name / "__pycache__", ignore_errors=True)
            _move_all(folder, target, direct, force)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_all(folder: Path, target: Path, direct: bool, force: bool) -> None:
    written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    if direct and len(written) > 1:
        raise PrototxtGenError(f"{target}: takes one file, and there are {len(written)}; write to a regular file")
    targets = [target if direct else target.parent / path for path in written]
    files.refuse_overwriting(targets, force)
    for path, place in zip(written, targets, strict=True):
        files.move_into_place(folder / path, place)
