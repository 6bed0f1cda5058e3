"""Building of real Caffe: patches, cache, wheel, system packages, errors; and properties of the built Caffe."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from prototxt_gen import real_caffe
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.real_caffe import build, installer, interpreter, patch, selftest, sources, system_packages, wheel
from tests.support.caffe_support import caffe_or_skip

HERE = interpreter.inspect_interpreter(Path(sys.executable))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prototxt-gen"


def test_patch_is_applied_only_if_its_text_occurs_as_often_as_expected(tmp_path: Path) -> None:
    (tmp_path / "a.cpp").write_text("one two two", encoding="utf-8")
    (tmp_path / "old.h").write_text("stale", encoding="utf-8")
    patch.apply_patches(tmp_path, (patch.Patch("a.cpp", "two", "2", 2), patch.Patch("a.cpp", "one", "1")), ("old.h",))
    assert (tmp_path / "a.cpp").read_text(encoding="utf-8") == "1 2 2"
    assert not (tmp_path / "old.h").exists()


@pytest.mark.parametrize("text", ["one", "one two", "two two two"])
def test_unexpected_caffe_sources_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.cpp").write_text(text, encoding="utf-8")
    with pytest.raises(PrototxtGenError, match=r"a\.cpp: expected 'two' 2 times, found it \d times; these are not"):
        patch.apply_patches(tmp_path, (patch.Patch("a.cpp", "two", "2", 2),))


def test_a_cached_source_is_used_and_its_hash_is_checked(cache: Path) -> None:
    content = b"sources"
    known = replace(sources.CAFFE, sha256=hashlib.sha256(content).hexdigest())
    (cache / "sources").mkdir(parents=True)
    (cache / "sources" / known.file).write_bytes(content)
    assert sources.fetch(known).read_bytes() == content
    with pytest.raises(PrototxtGenError, match="not the pinned c6410cc6"):
        sources.fetch(sources.CAFFE)


def test_failed_download_shows_pips_message(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(PrototxtGenError, match=r"(?s)pip download failed:.*brocolli-caffe"):
        sources.fetch(sources.CAFFE)
    assert not list((cache / "sources").iterdir())


def test_wheel_key_depends_on_all_its_inputs(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        json.dumps(installer._facts(python, opencv))
        for python in (HERE, replace(HERE, version=(3, 99)))
        for opencv in (True, False)
    ]
    monkeypatch.setattr(system_packages, "distribution", lambda: "other 1")
    keys.append(json.dumps(installer._facts(HERE, True)))
    monkeypatch.setattr(sources, "overlay_hash", lambda: "other")
    keys.append(json.dumps(installer._facts(HERE, True)))
    assert len(set(keys)) == 6


def test_overlay_hash_depends_on_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(sources.OVERLAY, tmp_path / "overlay")
    monkeypatch.setattr(sources, "OVERLAY", tmp_path / "overlay")
    before = sources.overlay_hash()
    assert sources.overlay_hash() == before
    with (tmp_path / "overlay" / "src" / "bn_layer.cpp").open("a", encoding="utf-8") as file:
        file.write("// one line more\n")
    assert sources.overlay_hash() != before


@pytest.fixture
def fake_build(tmp_path: Path) -> tuple[Path, build.Built]:
    for name in ("io.py", "proto/caffe_pb2.py", "imagenet/ilsvrc_2012_mean.npy"):
        file = tmp_path / "root" / "python" / "caffe" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("published", encoding="utf-8")
    (tmp_path / "root" / "LICENSE").write_text("BSD", encoding="utf-8")
    module, schema = tmp_path / f"_caffe{HERE.suffix}", tmp_path / "caffe.desc"
    module.write_bytes(b"module")
    schema.write_bytes(b"schema")
    return tmp_path / "root", build.Built(module, schema)


def test_wheel_content_matches_its_record(fake_build: tuple[Path, build.Built], tmp_path: Path) -> None:
    target = tmp_path / "wheels" / wheel.file_name("0123456789abcdef", HERE)
    wheel.pack(*fake_build, target, HERE, "0123456789abcdef", {"features": {"lmdb": True}})
    assert target.name == f"prototxt_gen_caffe-1.0.0+g0123456789-{HERE.tag}.whl"
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        record = archive.read("prototxt_gen_caffe-1.0.0+g0123456789.dist-info/RECORD").decode()
        listed = {row[0]: row for row in csv.reader(io.StringIO(record))}
        assert set(listed) == set(archive.namelist())
        assert all(int(row[2]) == len(archive.read(name)) for name, row in listed.items() if row[2])
        assert archive.read("caffe/proto/caffe_pb2.py") != b"published"
        assert {f"caffe/_caffe{HERE.suffix}", "caffe/__init__.py", "caffe/io.py", "caffe/build.json"} <= set(listed)
        assert not [name for name in listed if name.endswith(".in")]


def test_wheel_is_reproducible(fake_build: tuple[Path, build.Built], tmp_path: Path) -> None:
    for name in ("a.whl", "b.whl"):
        wheel.pack(*fake_build, tmp_path / name, HERE, "0123456789abcdef", {})
    assert (tmp_path / "a.whl").read_bytes() == (tmp_path / "b.whl").read_bytes()


def test_missing_packages_are_named_with_the_apt_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == "protoc" else f"/usr/bin/{name}")
    monkeypatch.setattr(system_packages, "_has_header", lambda name: name not in ("lmdb.h", "opencv2/imgcodecs.hpp"))
    monkeypatch.setattr(system_packages, "_has_library", lambda name: True)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(RuntimeMissingError) as caught:
        system_packages.require_packages(HERE, apt=False)
    packages = "protobuf-compiler liblmdb-dev libopencv-imgcodecs-dev"
    assert f"run 'sudo apt-get install -y --no-install-recommends {packages}'" in str(caught.value)


def test_system_python_needs_its_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = replace(HERE, system=True, version=(3, 12), includes=(tmp_path,))
    assert "python3.12-dev" in system_packages.find_missing(python).needed
    assert "python3.12-dev" not in system_packages.find_missing(replace(python, system=False)).needed


def test_only_cpython_is_supported(tmp_path: Path) -> None:
    with pytest.raises(PrototxtGenError, match="does not run as a Python"):
        interpreter.inspect_interpreter(tmp_path / "python")
    other = tmp_path / "pypy"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -c "$2" | sed s/cpython/pypy/\n', encoding="utf-8")
    other.chmod(0o755)
    with pytest.raises(PrototxtGenError, match=r"CPython 3\.10 and later"):
        interpreter.inspect_interpreter(other)


def test_failed_build_reports_first_errors_and_log(tmp_path: Path) -> None:
    log, words = tmp_path / "build.log", tmp_path / "words"
    said = "[  7%] Building a.cpp.o\na.cpp:3:5: error: 'x' was not declared\nmake: *** [all] Error 2"
    words.write_text(said, encoding="utf-8")
    reports: list[tuple[str, float]] = []
    with pytest.raises(PrototxtGenError) as caught:
        build._run_logged(["sh", "-c", f"cat {words}; exit 2"], log, lambda what, share: reports.append((what, share)))
    assert str(caught.value) == f"Caffe does not build:\na.cpp:3:5: error: 'x' was not declared\nthe whole log: {log}"
    assert reports == [("compiling a.cpp", 0.07)]
    assert log.read_text(encoding="utf-8").startswith("$ sh -c")


def test_log_without_known_errors_reports_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n".join(map(str, range(20))), encoding="utf-8")
    assert build.first_errors(tmp_path / "log").split() == [str(n) for n in range(12, 20)]


@pytest.mark.parametrize(("gigabytes", "cores", "expected"), [(64, 4, 4), (3, 8, 3), (0, 8, 1)])
def test_parallel_jobs_are_limited_by_cores_and_memory(
    gigabytes: int, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setattr(build, "_available_bytes", lambda: gigabytes << 30)
    assert build.parallel_jobs() == expected


def test_error_of_the_installed_caffe_is_reported(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\ncat > /dev/null\necho ImportError: libhdf5.so.103 is gone >&2\nexit 1\n", encoding="utf-8"
    )
    fake.chmod(0o755)
    with pytest.raises(PrototxtGenError, match=r"(?s)self-test failed:.*libhdf5\.so\.103 is gone"):
        selftest.run(fake)
    assert not real_caffe.status(fake).installed
    assert "libhdf5.so.103 is gone" in real_caffe.status(fake).problem


def test_load_without_caffe_names_the_command_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "caffe", None)
    with pytest.raises(RuntimeMissingError, match="run 'prototxt-gen caffe install'"):
        real_caffe.load()


def test_folder_named_caffe_is_not_taken_for_caffe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "caffe").mkdir()
    code = "from prototxt_gen import real_caffe; real_caffe.load()"
    path = os.pathsep.join([str(tmp_path), str(Path(real_caffe.__file__).parents[2])])
    python = [sys.executable, "-S", "-c", code]  # without site-packages, and so without a real one
    done = subprocess.run(python, capture_output=True, text=True, env={"PYTHONPATH": path})
    assert "is not Caffe: run 'prototxt-gen caffe install'" in done.stderr


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, prototxt_gen.real_caffe; print({'caffe', 'numpy', 'torch', 'google.protobuf'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


SSD_LAYERS = {
    "Permute",
    "PriorBox",
    "Normalize",
    "MultiBoxLoss",
    "DetectionOutput",
    "DetectionEvaluate",
    "SmoothL1Loss",
    "AnnotatedData",
}
OURS = {"BN", "Interp", "Swish", "Clip", "Python", "Data", "HDF5Data", "HDF5Output", "Accuracy", "InfogainLoss"}


@pytest.mark.caffe
def test_status_of_the_installed_caffe() -> None:
    caffe_or_skip()
    found = real_caffe.status()
    assert (found.problem, found.version) == ("", "1.0.0")
    assert set(found.layers) >= SSD_LAYERS | OURS
    assert {"SGDSolver", "NesterovSolver", "AdaGradSolver", "RMSPropSolver", "AdaDeltaSolver", "AdamSolver"} <= set(
        found.solvers
    )
    assert found.features["lmdb"] and found.features["hdf5"] and found.features["python_layer"]
    assert found.wheel == f"1.0.0+g{found.wheel[-10:]}"


@pytest.mark.caffe
def test_installed_caffe_matches_this_checkout() -> None:
    caffe_or_skip()
    assert real_caffe.status().built["overlay_sha256"] == sources.overlay_hash(), "run 'prototxt-gen caffe install'"


@pytest.mark.caffe
def test_selftest_passes() -> None:
    caffe_or_skip()
    assert selftest.run(Path(sys.executable)) == len(real_caffe.status().layers)


@pytest.mark.caffe
def test_schema_can_coexist_with_another_of_the_same_names() -> None:
    """A module generated by protoc registers caffe.NetParameter in protobuf's default pool, which must not conflict."""
    caffe_or_skip()
    code = """
from google.protobuf import descriptor_pb2, descriptor_pool
other = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
other.message_type.add(name="NetParameter").field.add(name="other", number=1, type=9, label=1)
descriptor_pool.Default().Add(other)
descriptor_pool.Default().FindMessageTypeByName("caffe.NetParameter")
from caffe.proto import caffe_pb2
import caffe
net = caffe_pb2.NetParameter(name="n")
net.layer.add(name="l", type="BN").bn_param.momentum = 0.5
assert caffe_pb2.NetParameter.FromString(net.SerializeToString()) == net
assert (caffe.TRAIN, caffe.TEST) == (0, 1) and caffe_pb2.Phase.Value("TEST") == 1
assert caffe_pb2.PoolingParameter.AVE == 1
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.caffe
def test_second_install_uses_the_cached_wheel(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    key = hashlib.sha256(
        json.dumps(installer._facts(HERE, system_packages.has_opencv()), sort_keys=True).encode()
    ).hexdigest()
    target = cache / "wheels" / key[:16] / wheel.file_name(key, HERE)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"a wheel")
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(installer, "pip", lambda python, *arguments: asked.append(arguments))
    monkeypatch.setattr(installer, "selftest", lambda python: 84)
    assert real_caffe.install() == target
    assert asked[0] == ("install", "--no-deps", "--force-reinstall", str(target))
