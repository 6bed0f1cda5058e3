"""Exact text replacements in Caffe's sources, which must occur exactly as often as expected."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError


@dataclass(frozen=True)
class Patch:
    """In the file `path` (relative to the sources), `old` occurs `count` times and becomes `new`."""

    path: str
    old: str
    new: str
    count: int = 1


def apply_patches(root: Path, patches: Iterable[Patch], stale: Iterable[str] = ()) -> None:
    """Apply the patches under `root` in place and delete `stale` files. Raises PrototxtGenError if a count differs."""
    for path in stale:
        (root / path).unlink(missing_ok=True)
    for patch in patches:
        file = root / patch.path
        text = file.read_text(encoding="utf-8")
        found = text.count(patch.old)
        if found != patch.count:
            raise PrototxtGenError(
                f"{patch.path}: expected {patch.old.strip()!r} {patch.count} times, found it {found} times; "
                "these are not the Caffe sources that the overlay was made for"
            )
        file.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
