"""The wheel and the sdist: what is in them, and that the wheel works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import prototxt_gen
from tests.project.test_public_names import OLDER_PATHS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SOURCES = ("prototxt_gen", "converters", "templates", "tests", "benchmarks", "generated/attention-56")
FILES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
BUILD = "from setuptools import build_meta as b; b.build_wheel('out'); b.build_sdist('out')"
WITHOUT_CODE = {
    "converters": {"py.typed"},
    "prototxt_gen": {"py.typed"},
    "prototxt_gen/templates": {path.name for path in (ROOT / "templates").iterdir()},
    "prototxt_gen/schema/forks": {path.name for path in (ROOT / "prototxt_gen/schema/forks").iterdir()},
    "prototxt_gen/real_caffe": {"Dockerfile", "Dockerfile.dockerignore"},
}
"""The files of the wheel that are no Python, but for the overlay."""


def run(folder: Path, *command: str | Path, **environment: str) -> str:
    """Run a command and return its stdout; what it says goes into the error where it fails."""
    names = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | environment
    done = subprocess.run([str(word) for word in command], cwd=folder, env=names, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel and the sdist, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    run(folder, sys.executable, "-W", "error::UserWarning", "-c", BUILD)
    return folder / "out"


def wheel_names(built: Path) -> set[str]:
    (wheel,) = built.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def sdist_names(built: Path) -> set[str]:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_the_wheel_holds_the_packages_and_nothing_else(built: Path) -> None:
    names = {name for name in wheel_names(built) if ".dist-info/" not in name}
    code = {
        str(path.relative_to(ROOT)) for top in ("prototxt_gen", "converters") for path in (ROOT / top).rglob("*.py")
    }
    overlay = {str(path.relative_to(ROOT)) for path in (ROOT / "prototxt_gen/real_caffe/overlay").rglob("*.*")}
    other = {f"{folder}/{name}" for folder, inside in WITHOUT_CODE.items() for name in inside}
    assert names == code | other | overlay
    assert len(overlay) > 10


def test_the_wheel_tells_its_name_licence_and_command(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        info = {
            name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist() if "dist-info" in name
        }
    assert wheel.name == "prototxt_gen-0.1.0-py3-none-any.whl"
    assert "prototxt-gen = prototxt_gen.cli:main" in info["entry_points.txt"]
    assert "Redistribution and use" in info["LICENSE"]
    needed = [
        line for line in info["METADATA"].splitlines() if line.startswith("Requires-Dist") and "extra" not in line
    ]
    assert sorted(line.split()[1].partition(">")[0] for line in needed) == [
        "click",
        "jinja2",
        "numpy",
        "protobuf",
        "rich",
    ]
    assert {"torch", "onnx", "train", "dev"} <= {
        line.split()[1] for line in info["METADATA"].splitlines() if line.startswith("Provides-Extra")
    }


def test_the_sdist_holds_what_the_wheel_is_built_of(built: Path) -> None:
    names = sdist_names(built)
    assert not [name for name in names if name.split("/")[0] in ("tests", "benchmarks", "generated")]
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "templates/net.prototxt.j2"} <= names
    of_the_wheel = {name.replace("prototxt_gen/templates/", "templates/") for name in wheel_names(built)}
    assert {name for name in of_the_wheel if ".dist-info/" not in name} <= names


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of a new environment with the wheel; what it needs is ours, by a path file."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    (wheel,) = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", programs / "python", "--disable-pip-version-check")
    run(folder, *pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel)
    home = run(folder, programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(home) / "needed.pth").write_text(sysconfig.get_path("purelib"))
    return programs


def test_the_wheel_emits_a_net(installed: Path, tmp_path: Path) -> None:
    printed = run(tmp_path, installed / "prototxt-gen", "emit", "attention-56", "-o", "net")
    assert printed.split() == [
        f"net/{name}" for name in ("deploy.prototxt", "train_val.prototxt", "solver.prototxt", "README.md")
    ]
    for name in ("deploy.prototxt", "solver.prototxt"):
        assert (tmp_path / "net" / name).read_bytes() == (ROOT / "generated/attention-56" / name).read_bytes()
    table = run(tmp_path, installed / "prototxt-gen", "summary", "net/deploy.prototxt", "--json")
    assert '"InnerProduct"' in table


def test_the_wheel_is_what_runs(installed: Path, tmp_path: Path) -> None:
    code = "import prototxt_gen, converters; print(prototxt_gen.__file__, converters.__file__, sep='\\n')"
    homes = run(tmp_path, installed / "python", "-c", code).split()
    assert len(homes) == 2
    assert all(str(installed.parent) in home for home in homes)
    assert run(tmp_path, installed / "prototxt-gen", "--version").strip().endswith("0.1.0")
    code = "from prototxt_gen.schema.dialect import DIALECTS as D; print(D['happynear'].number('bn_param'))"
    assert run(tmp_path, installed / "python", "-c", code).strip() == "200"


def test_the_wheel_has_every_import_path_that_documents_have_shown(installed: Path, tmp_path: Path) -> None:
    lines = [f"from {module} import {', '.join(names)}" for module, names in OLDER_PATHS.items()]
    lines.append(f"from prototxt_gen import {', '.join(prototxt_gen.__all__)}")
    assert run(tmp_path, installed / "python", "-c", "\n".join([*lines, "print('imported')"])).strip() == "imported"
