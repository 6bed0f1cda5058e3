"""`install`: system packages, sources, compilation, wheel, pip, self-test, in this order; the wheel is cached."""

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
from prototxt_gen.real_caffe.interpreter import Interpreter, inspect_interpreter, pip
from prototxt_gen.real_caffe.selftest import run as selftest

_ABANDONED_SECONDS = 24 * 3600


def install(python: Path, apt: bool = False, force: bool = False, progress: ShareProgress | None = None) -> Path:
    """Build, install and test Caffe for `python`; see `prototxt_gen.real_caffe.install`."""
    with nullcontext(progress) if progress else share_bar() as report:
        return _install(python, apt, force, report)


def _install(python: Path, apt: bool, force: bool, report: ShareProgress) -> Path:
    interpreter = inspect_interpreter(python)
    if apt:
        report("installing system packages", 0.0)
        system_packages.require_packages(interpreter, apt=True)
    wheel_file = _cached_or_built_wheel(interpreter, force, sub_progress(report, 0.02, 0.95))
    report("installing the wheel", 0.95)
    pip(python, "install", "--no-deps", "--force-reinstall", str(wheel_file))
    pip(python, "install", *wheel.REQUIRES)
    report("testing it", 0.98)
    try:
        selftest(python)
    except PrototxtGenError as error:
        raise PrototxtGenError(f"{wheel_file}: installed, but {error}") from None
    report("done", 1.0)
    return wheel_file


def _cached_or_built_wheel(interpreter: Interpreter, force: bool, progress: ShareProgress) -> Path:
    opencv = system_packages.has_opencv()
    facts = _facts(interpreter, opencv)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    target = sources.cache_folder() / "wheels" / key[:16] / wheel.file_name(key, interpreter)
    if force or not target.is_file():
        system_packages.require_packages(interpreter, apt=False)
        _build_wheel(interpreter, opencv, facts, key, target, progress)
    return target


def _facts(interpreter: Interpreter, opencv: bool) -> dict[str, object]:
    """Return everything that the content of the wheel depends on.

    NumPy's ABI is not included: pybind11 finds NumPy's functions at run time, so one wheel works with NumPy 1 and 2.
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


def _build_wheel(
    interpreter: Interpreter, opencv: bool, facts: dict[str, object], key: str, target: Path, progress: ShareProgress
) -> None:
    progress("fetching sources", 0.0)
    _remove_abandoned_builds()
    archive, headers = sources.fetch(sources.CAFFE), sources.fetch(sources.PYBIND11)
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=sources.cache_folder()))
    try:
        root = sources.unpack(archive, folder / "caffe")
        include = sources.unpack_headers(headers, folder / "pybind11")
        project = Path(shutil.copytree(sources.OVERLAY, folder / "overlay"))
        log = sources.cache_folder() / "logs" / f"build-{key[:16]}.log"
        progress = sub_progress(progress, 0.05, 1.0)
        built = build.compile_caffe(project, root, include, interpreter, opencv, log, progress)
        wheel.pack(root, built, target, interpreter, key, facts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned_builds() -> None:
    """Remove the folders of builds that were killed more than a day ago."""
    for folder in sources.cache_folder().glob("build-*"):
        if time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
