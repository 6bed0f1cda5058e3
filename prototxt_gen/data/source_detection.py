"""Detection of the kind of a source or data set at a path, and opening of sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prototxt_gen.common.errors import nearest
from prototxt_gen.data import binary_sources as binary
from prototxt_gen.data.data_errors import DataError, abbreviated
from prototxt_gen.data.sources import SampleSource, folder_source, list_source, read_lines

SOURCE_KINDS = ("folder", "list", "npz", "cifar10", "cifar100", "cifar100-coarse", "cifar-python", "idx")
DATA_SET_KINDS = ("lmdb", "hdf5", "hdf5-list")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip", ".7z", ".rar")


def detect_kind(path: Path) -> str:
    """Return one of KINDS or SETS for a path. Raises DataError for what is missing or unknown, saying what to do."""
    if path.is_dir():
        return _detect_folder_kind(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    return _detect_file_kind(path)


def _detect_folder_kind(path: Path) -> str:
    patterns = {
        "lmdb": "data.mdb",
        "cifar10": "*_batch*.bin",
        "cifar100": "t*.bin",
        "idx": "*images*idx3*",
        "cifar-python": "batches.meta",
    }
    for kind, pattern in patterns.items():
        if any(path.glob(pattern)):
            return kind
    if (path / "CURRENT").is_file() and any(path.glob("MANIFEST-*")):
        raise DataError(f"{path} is a LevelDB, which cannot be read here; use LMDB or HDF5")
    if all((path / name).is_file() for name in ("train", "test", "meta")):
        return "cifar-python"
    return "folder"


def _detect_file_kind(path: Path) -> str:
    name = path.name.lower()
    if name.endswith(_ARCHIVES):
        raise DataError(f"{path} is an archive: unpack it and pass the folder")
    if name.endswith(".npz"):
        return "npz"
    if name.endswith((".h5", ".hdf5")):
        return "hdf5"
    if name.endswith(".bin"):
        return "cifar10" if "batch" in name or path.stat().st_size % 3074 else "cifar100"
    return _detect_kind_by_content(path)


def _detect_kind_by_content(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(4096)
    if "idx3" in path.name or head[:4] == b"\0\0\x08\x03":
        return "idx"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):  # a pickle of protocol 2 to 5
        return "cifar-python"
    if b"\0" in head:
        raise DataError(f"{path} is not a list file, .npz, CIFAR or IDX file; kinds are {abbreviated(SOURCE_KINDS)}")
    first = next((line.strip() for line in read_lines(path) if line.strip()), "")
    return "hdf5-list" if first.lower().endswith((".h5", ".hdf5")) else "list"


def open_source(
    path: str | Path, kind: str | None = None, split: str | None = None, root: str | None = None, color: bool = True
) -> SampleSource:
    """Return the source at a path.

    `kind` overrides the detected kind; `split` selects a part ("train", "test") of sources that have several; `root` is
    put before the paths of a list; `color` False decodes images to one channel. Raises DataError.
    """
    src = Path(path)
    kind = kind or detect_kind(src)
    if kind in DATA_SET_KINDS:
        raise DataError(
            f"{src} is a data set already ({kind}); image folders, lists, .npz, CIFAR and IDX files are sources"
        )
    if kind not in SOURCE_KINDS:
        raise DataError(
            f"no such kind of source: {kind!r}{nearest(kind, SOURCE_KINDS)}; kinds are {abbreviated(SOURCE_KINDS)}"
        )
    if not src.exists():
        raise DataError(f"{src} does not exist")
    if split is not None and src.is_file() and kind != "npz":
        raise DataError(f"{src} is one file without parts: there is no part {split!r} to choose")
    openers: dict[str, Callable[[], SampleSource]] = {
        "folder": lambda: folder_source(src, split, color),
        "list": lambda: list_source(src, root, color),
        "npz": lambda: binary.npz_source(src, split),
        "cifar-python": lambda: binary.cifar_python_source(src, split),
        "idx": lambda: binary.idx_source(src, split),
    }
    return openers[kind]() if kind in openers else binary.cifar_source(src, kind, split)
