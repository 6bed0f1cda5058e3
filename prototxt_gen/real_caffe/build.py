"""Compilation of the patched Caffe sources with CMake and make, with progress (make's `[ 42%]`) and a log file."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.progress import ShareProgress
from prototxt_gen.real_caffe.interpreter import Interpreter

_PERCENT = re.compile(r"\[\s*(\d+)%\]")
_ERROR_LINE = re.compile(
    r"\b(?:fatal )?error:|CMake Error|undefined reference|Killed signal|cannot find -l|No space left"
)
_BYTES_PER_JOB = 1 << 30  # the most that g++ needs for one of Caffe's files


@dataclass(frozen=True)
class Built:
    """The result of a build: the extension module and the compiled schema (caffe.desc)."""

    module: Path
    schema: Path


def parallel_jobs() -> int:
    """Return how many files to compile at once: one per usable core, limited by the available memory."""
    return max(1, min(len(os.sched_getaffinity(0)), _available_bytes() // _BYTES_PER_JOB))


def _available_bytes() -> int:
    """Return the bytes of memory that new processes can use, including the system's file cache."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def compile_caffe(
    project: Path, root: Path, headers: Path, interpreter: Interpreter, opencv: bool, log: Path, progress: ShareProgress
) -> Built:
    """Build the overlay at `project` with the sources at `root`. Raises PrototxtGenError with the first errors."""
    folder = project.parent / "build"
    includes = ";".join(str(path) for path in (*interpreter.includes, headers))
    configure = [
        *("cmake", "-S", str(project), "-B", str(folder), "-G", "Unix Makefiles"),
        f"-DCAFFE_ROOT={root}",
        f"-DBINDING_INCLUDES={includes}",
        f"-DEXTENSION_SUFFIX={interpreter.suffix}",
        f"-DWITH_OPENCV={'ON' if opencv else 'OFF'}",
    ]
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    _run_logged(configure, log, lambda what, share: None)
    _run_logged(["cmake", "--build", str(folder), "--", f"-j{parallel_jobs()}"], log, progress)
    return Built(folder / f"_caffe{interpreter.suffix}", folder / "generated" / "caffe.desc")


def _run_logged(command: list[str], log: Path, progress: ShareProgress) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            for line in process.stdout or ():
                file.write(line)
                _report_percentage(line, progress)
    if process.returncode != 0:
        raise PrototxtGenError(f"Caffe does not build:\n{first_errors(log)}\nthe whole log: {log}")


def _report_percentage(line: str, progress: ShareProgress) -> None:
    percent = _PERCENT.search(line)
    if percent:
        progress(f"compiling {Path(line.split()[-1]).name.removesuffix('.o')}", int(percent.group(1)) / 100)


def first_errors(log: Path, max_lines: int = 8) -> str:
    """Return the first lines of a log that contain an error, or its last lines if none does."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    error_lines = [line.strip() for line in lines if _ERROR_LINE.search(line) and not line.startswith("$ ")]
    return "\n".join(error_lines[:max_lines] or lines[-max_lines:])
