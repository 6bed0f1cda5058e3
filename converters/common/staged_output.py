"""Outputs of several files that appear only when all is well: written in a folder beside, checked there, then moved."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.files import refuse_overwriting


@contextmanager
def staged(out: Path, force: bool = False, is_folder: bool = False) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder; what is beside it then moves to where `out` is.

    Nothing is written at `out` where the block raises. PrototxtGenError where a file is there and `force` is not given.
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
        made = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        refuse_overwriting([out.parent / path for path in made], force)
        for path in made:
            target = out.parent / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / path).replace(target)
    except OSError as error:
        raise PrototxtGenError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
