"""Caffe as a wheel: the module, its Python files, the schema, and a note of what it was built from."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from prototxt_gen.common.files import replacing
from prototxt_gen.real_caffe.build import Built
from prototxt_gen.real_caffe.interpreter import Interpreter
from prototxt_gen.real_caffe.sources import OVERLAY

PROJECT = "prototxt_gen_caffe"
CAFFE_VERSION = "1.0.0"
REQUIRES = ("numpy>=1.23", "protobuf>=4.22")

_METADATA = """\
Metadata-Version: 2.1
Name: prototxt-gen-caffe
Version: {version}
Summary: Caffe 1.0 for this Python, built by prototxt-gen
License: BSD-2-Clause
License-File: LICENSE
{requires}
"""
_WHEEL = "Wheel-Version: 1.0\nGenerator: prototxt-gen\nRoot-Is-Purelib: false\nTag: {tag}\n"


def file_name(key: str, interpreter: Interpreter) -> str:
    """Return the wheel's name; the start of the build's key is its local version."""
    return f"{PROJECT}-{_version(key)}-{interpreter.tag}.whl"


def _version(key: str) -> str:
    return f"{CAFFE_VERSION}+g{key[:10]}"


def pack(
    root: Path, built: Built, target: Path, interpreter: Interpreter, key: str, facts: Mapping[str, object]
) -> None:
    """Write the wheel `target` from the patched sources at `root` and `built`; `facts` become caffe/build.json."""
    files = _package(root, built)
    files["caffe/build.json"] = json.dumps(facts, indent=1, sort_keys=True).encode()
    info = f"{PROJECT}-{_version(key)}.dist-info"
    requires = "\n".join(f"Requires-Dist: {name}" for name in REQUIRES)
    files[f"{info}/METADATA"] = _METADATA.format(version=_version(key), requires=requires).encode()
    files[f"{info}/WHEEL"] = _WHEEL.format(tag=interpreter.tag).encode()
    files[f"{info}/LICENSE"] = (root / "LICENSE").read_bytes()
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD").encode()
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)


def _package(root: Path, built: Built) -> dict[str, bytes]:
    python = root / "python"
    files = {path.relative_to(python).as_posix(): path.read_bytes() for path in sorted(python.rglob("*.py"))}
    del files["caffe/proto/caffe_pb2.py"]  # protoc's, of some other version
    mean = "caffe/imagenet/ilsvrc_2012_mean.npy"
    files[mean] = (python / mean).read_bytes()
    own = OVERLAY / "python"
    for path in sorted(own.rglob("*.in")):
        files[path.relative_to(own).as_posix().removesuffix(".in")] = path.read_bytes()
    files["caffe/proto/caffe.desc"] = built.schema.read_bytes()
    files[f"caffe/{built.module.name}"] = built.module.read_bytes()
    return files


def _record(files: Mapping[str, bytes], name: str) -> str:
    lines = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"{path},sha256={digest},{len(content)}\n")
    return "".join(lines) + f"{name},,\n"
