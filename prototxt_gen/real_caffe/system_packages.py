"""What the build needs of the system: found by its files, named by Debian's and Ubuntu's packages."""

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
class Missing:
    """Debian packages that are not there: those the build cannot do without, and those that only add to it."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def line(self) -> str:
        """Return the command that installs them all."""
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
    """Return whether the image parts of OpenCV can be built against."""
    return all(_has_header(name) for name in OPENCV.values())


def missing(interpreter: Interpreter) -> Missing:
    """Look for everything the build uses."""
    needed = [package for package, name in PROGRAMS.items() if shutil.which(name) is None]
    needed += [package for package, name in HEADERS.items() if not _has_header(name)]
    needed += [package for package, name in LIBRARIES.items() if not _has_library(name)]
    if interpreter.system and not interpreter.has_headers:
        needed.append("python{}.{}-dev".format(*interpreter.version))
    return Missing(tuple(needed), () if has_opencv() else tuple(OPENCV))


def require(interpreter: Interpreter, apt: bool) -> None:
    """Return if the build can start; with `apt`, install what is missing first, the optional too.

    RuntimeMissingError names the missing packages and the line that installs them.
    """
    lacking = missing(interpreter)
    if apt and (lacking.needed or lacking.optional):
        _install(lacking)
        lacking = missing(interpreter)
    if lacking.needed:
        raise RuntimeMissingError(
            f"Caffe needs system packages that are missing: {', '.join(lacking.needed)}; run '{lacking.line}'"
        )
    if not interpreter.has_headers:
        raise RuntimeMissingError(f"{interpreter.executable}: its headers (Python.h) are not installed")


def _install(lacking: Missing) -> None:
    if shutil.which("apt-get") is None:
        raise RuntimeMissingError(f"there is no apt-get here; Caffe needs {', '.join(lacking.needed)} or their like")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = lacking.line.split()
    update = [*command[: command.index("apt-get") + 1], "update"]
    for step in (update, command):
        done = subprocess.run(step, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0 and step is command:
            tail = "\n".join(done.stdout.strip().splitlines()[-5:])
            raise PrototxtGenError(f"'{' '.join(step)}' failed:\n{tail}")


def distribution() -> str:
    """Return what tells one distribution's libraries from another's, e.g. `debian 12`."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    return f"{facts.get('ID', 'linux')} {facts.get('VERSION_ID', '')}".replace('"', "").strip()
