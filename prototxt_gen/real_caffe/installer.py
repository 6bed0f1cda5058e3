"""`install`: system packages, sources, compiler, wheel, pip, self-test, in that order; from the cache if it can."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.progress import ShareProgress, share_bar, sub_progress
from prototxt_gen.real_caffe import build, sources, system_packages, wheel
from prototxt_gen.real_caffe.interpreter import Interpreter, inspect, pip
from prototxt_gen.real_caffe.selftest import run as selftest

_ABANDONED_SECONDS = 24 * 3600


def install(python: Path, apt: bool = False, force: bool = False, progress: ShareProgress | None = None) -> Path:
    """Build, install and test Caffe for `python`; see `prototxt_gen.real_caffe.install`."""
    with nullcontext(progress) if progress else share_bar() as report:
        return _install(python, apt, force, report)


def _install(python: Path, apt: bool, force: bool, report: ShareProgress) -> Path:
    interpreter = inspect(python)
    if apt:
        report("installing system packages", 0.0)
        system_packages.require(interpreter, apt=True)
    built = _wheel(interpreter, force, sub_progress(report, 0.02, 0.95))
    report("installing the wheel", 0.95)
    pip(python, "install", "--no-deps", "--force-reinstall", str(built))
    pip(python, "install", *wheel.REQUIRES)
    report("testing it", 0.98)
    try:
        selftest(python)
    except PrototxtGenError as error:
        raise PrototxtGenError(f"{built}: installed, but {error}") from None
    report("done", 1.0)
    return built


def _wheel(interpreter: Interpreter, force: bool, progress: ShareProgress) -> Path:
    opencv = system_packages.has_opencv()
    facts = _facts(interpreter, opencv)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    target = sources.cache() / "wheels" / key[:16] / wheel.file_name(key, interpreter)
    if force or not target.is_file():
        system_packages.require(interpreter, apt=False)
        _build(interpreter, opencv, facts, key, target, progress)
    return target


def _facts(interpreter: Interpreter, opencv: bool) -> dict[str, object]:
    """Return all that the wheel's content depends on.

    NumPy's ABI is not among them: pybind11 finds NumPy's functions at run time, so one wheel serves NumPy 1 and 2.
    """
    return {
        "caffe": f"{sources.CAFFE.project} {sources.CAFFE.version}",
        "caffe_sha256": sources.CAFFE.sha256,
        "pybind11": sources.PYBIND11.version,
        "overlay_sha256": sources.overlay_hash(),
        "python": interpreter.tag,
        "distribution": system_packages.distribution(),
        "features": {
            "lmdb": True,
            "hdf5": True,
            "python_layer": True,
            "opencv": opencv,
            "leveldb": False,
            "gpu": False,
        },
    }


def _build(
    interpreter: Interpreter, opencv: bool, facts: dict[str, object], key: str, target: Path, progress: ShareProgress
) -> None:
    progress("fetching sources", 0.0)
    _sweep()
    archive, headers = sources.fetch(sources.CAFFE), sources.fetch(sources.PYBIND11)
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=sources.cache()))
    try:
        root = sources.unpack(archive, folder / "caffe")
        include = sources.unpack_headers(headers, folder / "pybind11")
        project = Path(shutil.copytree(sources.OVERLAY, folder / "overlay"))
        log = sources.cache() / "logs" / f"build-{key[:16]}.log"
        built = build.compile_caffe(project, root, include, interpreter, opencv, log, sub_progress(progress, 0.05, 1.0))
        wheel.pack(root, built, target, interpreter, key, facts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove what builds that were killed have left behind."""
    for folder in sources.cache().glob("build-*"):
        if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
