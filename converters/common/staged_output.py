"""Output files that appear all together: written in a temporary folder, verified there, and then moved."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.files import refuse_overwriting


@contextmanager
def staged_output(out: Path, force: bool = False, is_folder: bool = False) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder; afterwards move all files of that folder next to `out`.

    `is_folder`: `out` is a folder, which the caller creates. If the block raises an error, no file is moved. Raises
    PrototxtGenError if a file exists and `force` is False, or if `out` cannot be written.
    """
    refuse_overwriting([] if is_folder else [out], force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    except OSError as error:
        raise PrototxtGenError(f"{out}: cannot be written: {error.strerror or error}") from None
    try:
        yield folder / out.name
        shutil.rmtree(folder / out.name / "__pycache__", ignore_errors=True)
        written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        refuse_overwriting([out.parent / path for path in written], force)
        for path in written:
            target = out.parent / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / path).replace(target)
    except OSError as error:
        raise PrototxtGenError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
