"""Telling what a path holds, and opening it as a source of samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prototxt_gen.common.errors import nearest
from prototxt_gen.data import binary_sources as binary
from prototxt_gen.data.data_errors import DataError, named
from prototxt_gen.data.sources import Source, folder_source, list_source, read_lines

KINDS = ("folder", "list", "npz", "cifar10", "cifar100", "cifar100-coarse", "cifar-python", "idx")
SETS = ("lmdb", "hdf5", "hdf5-list")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip", ".7z", ".rar")


def kind_of(path: Path) -> str:
    """Return one of KINDS or SETS for a path. Raises DataError for what is missing or unknown, saying what to do."""
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    return _kind_of_file(path)


def _kind_of_folder(path: Path) -> str:
    signs = {
        "lmdb": "data.mdb",
        "cifar10": "*_batch*.bin",
        "cifar100": "t*.bin",
        "idx": "*images*idx3*",
        "cifar-python": "batches.meta",
    }
    for kind, pattern in signs.items():
        if any(path.glob(pattern)):
            return kind
    if (path / "CURRENT").is_file() and any(path.glob("MANIFEST-*")):
        raise DataError(f"{path} is a LevelDB, which is not read here; LMDB and HDF5 are")
    if all((path / name).is_file() for name in ("train", "test", "meta")):
        return "cifar-python"
    return "folder"


def _kind_of_file(path: Path) -> str:
    name = path.name.lower()
    if name.endswith(_ARCHIVES):
        raise DataError(f"{path} is an archive: unpack it and name the folder")
    if name.endswith(".npz"):
        return "npz"
    if name.endswith((".h5", ".hdf5")):
        return "hdf5"
    if name.endswith(".bin"):
        return "cifar10" if "batch" in name or path.stat().st_size % 3074 else "cifar100"
    return _kind_of_content(path)


def _kind_of_content(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(4096)
    if "idx3" in path.name or head[:4] == b"\0\0\x08\x03":
        return "idx"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):  # a pickle of protocol 2 to 5
        return "cifar-python"
    if b"\0" in head:
        raise DataError(f"{path} is no list file, .npz, CIFAR or IDX file; kinds are {named(KINDS)}")
    first = next((line.strip() for line in read_lines(path) if line.strip()), "")
    return "hdf5-list" if first.lower().endswith((".h5", ".hdf5")) else "list"


def open_source(
    path: str | Path, kind: str | None = None, split: str | None = None, root: str | None = None, color: bool = True
) -> Source:
    """Open a path as a source.

    `kind` overrides what detection says; `split` names a part ("train", "test") of sources that have several; `root`
    goes in front of a list's paths; `color` False decodes pictures to one channel. Raises DataError.
    """
    src = Path(path)
    kind = kind or kind_of(src)
    if kind in SETS:
        raise DataError(f"{src} is a data set already ({kind}); pictures, lists, .npz, CIFAR and IDX files are sources")
    if kind not in KINDS:
        raise DataError(f"no such kind of source: {kind!r}{nearest(kind, KINDS)}; kinds are {named(KINDS)}")
    if not src.exists():
        raise DataError(f"{src} does not exist")
    if split is not None and src.is_file() and kind != "npz":
        raise DataError(f"{src} is one file without parts: there is no part {split!r} to choose")
    openers: dict[str, Callable[[], Source]] = {
        "folder": lambda: folder_source(src, split, color),
        "list": lambda: list_source(src, root, color),
        "npz": lambda: binary.npz_source(src, split),
        "cifar-python": lambda: binary.cifar_python_source(src, split),
        "idx": lambda: binary.idx_source(src, split),
    }
    return openers[kind]() if kind in openers else binary.cifar_source(src, kind, split)
