"""System packages that the build needs: detected by their files, named as in Debian and Ubuntu."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.real_caffe.interpreter import Interpreter

PROGRAMS = {"cmake": "cmake", "make": "make", "g++": "g++", "protobuf-compiler": "protoc"}
HEADERS = {
    "libprotobuf-dev": "google/protobuf/message.h",
    "libboost-dev": "boost/version.hpp",
    "libopenblas-dev": "cblas.h",
    "liblmdb-dev": "lmdb.h",
    "libhdf5-dev": "hdf5.h",
}
LIBRARIES = {
    "libboost-thread-dev": "libboost_thread.so",
    "libboost-filesystem-dev": "libboost_filesystem.so",
    "libboost-regex-dev": "libboost_regex.so",
}
OPENCV = {"libopencv-imgcodecs-dev": "opencv2/imgcodecs.hpp"}


@dataclass(frozen=True)
class MissingPackages:
    """Debian packages that are not installed: those that the build requires, and those that it can do without."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def apt_command(self) -> str:
        """The apt-get command that installs all of them."""
        sudo = "" if os.geteuid() == 0 else "sudo "
        return f"{sudo}apt-get install -y --no-install-recommends {' '.join((*self.needed, *self.optional))}"


def _folders(root: str, *subfolders: str) -> Iterator[Path]:
    for prefix in (Path("/usr"), Path("/usr/local")):
        top = prefix / root
        for base in (top, *top.glob("*-linux-gnu*")):
            yield base
            yield from (base / name for name in subfolders)


def _has_header(name: str) -> bool:
    folders = _folders("include", "hdf5/serial", "openblas", "openblas-pthread", "opencv4")
    return any((folder / name).exists() for folder in folders)


def _has_library(name: str) -> bool:
    return any((folder / name).exists() for folder in _folders("lib"))


def has_opencv() -> bool:
    """Return whether OpenCV's image modules are installed with headers."""
    return all(_has_header(name) for name in OPENCV.values())


def find_missing(interpreter: Interpreter) -> MissingPackages:
    """Return the packages that the build uses and that are not installed."""
    needed = [package for package, name in PROGRAMS.items() if shutil.which(name) is None]
    needed += [package for package, name in HEADERS.items() if not _has_header(name)]
    needed += [package for package, name in LIBRARIES.items() if not _has_library(name)]
    if interpreter.system and not interpreter.has_headers:
        needed.append("python{}.{}-dev".format(*interpreter.version))
    return MissingPackages(tuple(needed), () if has_opencv() else tuple(OPENCV))


def require_packages(interpreter: Interpreter, apt: bool) -> None:
    """Check that the build can start. With `apt`, missing packages are installed first, the optional ones too.

    Raises RuntimeMissingError with the missing packages and the command that installs them.
    """
    missing = find_missing(interpreter)
    if apt and (missing.needed or missing.optional):
        _install(missing)
        missing = find_missing(interpreter)
    if missing.needed:
        raise RuntimeMissingError(
            f"Caffe needs system packages that are missing: {', '.join(missing.needed)}; run '{missing.apt_command}'"
        )
    if not interpreter.has_headers:
        raise RuntimeMissingError(f"{interpreter.executable}: its headers (Python.h) are not installed")


def _install(missing: MissingPackages) -> None:
    if shutil.which("apt-get") is None:
        raise RuntimeMissingError(
            f"there is no apt-get here; Caffe needs {', '.join(missing.needed)} or equivalent packages"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = missing.apt_command.split()
    update = [*command[: command.index("apt-get") + 1], "update"]
    for step in (update, command):
        done = subprocess.run(step, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0 and step is command:
            tail = "\n".join(done.stdout.strip().splitlines()[-5:])
            raise PrototxtGenError(f"'{' '.join(step)}' failed:\n{tail}")


def distribution() -> str:
    """Return name and version of the Linux distribution, e.g. `debian 12`."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    return f"{facts.get('ID', 'linux')} {facts.get('VERSION_ID', '')}".replace('"', "").strip()
