"""Caffe's sources and pybind11's headers, downloaded from PyPI by pip, checked by SHA-256, and cached."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.real_caffe import patch, patches
from prototxt_gen.real_caffe.interpreter import pip

OVERLAY = Path(__file__).with_name("overlay")


@dataclass(frozen=True)
class PinnedFile:
    """A file on PyPI with its hash; `format` is the pip option that selects exactly this file."""

    project: str
    version: str
    file: str
    sha256: str
    format: str


CAFFE = PinnedFile(
    "brocolli-caffe",
    "9.0.2",
    "brocolli-caffe-9.0.2.tar.gz",
    "c6410cc60bdd6db685d441b66be7df05410f8850ac88d6b75d48ef9b2315c08a",
    "--no-binary=:all:",
)
PYBIND11 = PinnedFile(
    "pybind11",
    "3.1.0",
    "pybind11-3.1.0-py3-none-any.whl",
    "b8488090f8acffbcb6b5d6a85571a6827a0a2981ffb75e5a0b27b87c4a6b7dd0",
    "--only-binary=:all:",
)

# Nothing else of the archive (tests, models, documents, a .git) is unpacked.
_WANTED = ("src/caffe/", "include/caffe/", "python/caffe/", "LICENSE")
_UNWANTED = ("src/caffe/test/", "include/caffe/test/", "python/caffe/test/", "python/caffe/__pycache__/")


def cache_folder() -> Path:
    """Return the cache folder for downloads and builds; it is created if necessary."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "prototxt-gen"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch(source: PinnedFile) -> Path:
    """Return the path of the file in the cache after downloading it if necessary; its hash is always checked.

    A file with the right name and hash that is copied into the folder `sources` of the cache makes the download
    unnecessary.
    """
    target = cache_folder() / "sources" / source.file
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(source, target)
    found = sha256(target)
    if found != source.sha256:
        raise PrototxtGenError(f"{target}: its SHA-256 is {found}, not the pinned {source.sha256}; delete the file")
    return target


def _download(source: PinnedFile, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{source.project}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8")
        pip(Path(sys.executable), "download", "--no-deps", source.format, "-r", str(pinned), "-d", name)
        (folder / source.file).replace(target)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the files that the build needs from Caffe's archive into `folder`, patch them, and return the folder."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            _, _, path = member.name.partition("/")
            if member.isfile() and path.startswith(_WANTED) and not path.startswith(_UNWANTED):
                _extract(tar, member, folder / path)
    patch.apply_patches(folder, patches.PATCHES, patches.STALE)
    return folder


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = tar.extractfile(member)
    if content is None or ".." in target.parts:
        raise PrototxtGenError(f"{member.name}: not a plain file of the archive")
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file)


def unpack_headers(wheel: Path, folder: Path) -> Path:
    """Unpack pybind11's wheel into `folder` and return its include folder."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder / "pybind11" / "include"


def overlay_hash() -> str:
    """Return one hash over everything we add to Caffe: overlay files, patches, and the layout of the wheel."""
    files = {path.relative_to(OVERLAY).as_posix(): path for path in OVERLAY.rglob("*") if path.is_file()}
    files |= {name: Path(__file__).with_name(name) for name in ("patches.py", "patches_faults.py", "wheel.py")}
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0".encode())
        total.update(hashlib.sha256(files[name].read_bytes()).digest())
    return total.hexdigest()
