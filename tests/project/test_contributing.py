"""The worked examples of CONTRIBUTING.md, followed in a copy of the checkout: each touches two places and works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.caffe_support import caffe_or_skip

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LAYER_TYPE, COMMAND, TABLE_LINE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COPIED = ("prototxt_gen", "converters", "templates", "tests", "pyproject.toml", "setup.py", "README.md")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the checkout without the files that the examples write."""
    skipped = shutil.ignore_patterns("__pycache__", "threshold.py", "Threshold.npz", "count_command.py")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=skipped)
        else:
            shutil.copy(source, tmp_path)
    return tmp_path


def run(checkout: Path, *arguments: str) -> str:
    """Run Python in the copy, and return its stdout."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_tests(checkout: Path, file: str, keyword: str) -> str:
    return run(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", keyword)


@pytest.mark.slow
@pytest.mark.caffe
def test_a_new_layer_type(checkout: Path) -> None:
    """Its file, and its golden tensors; the tests of layer types find both."""
    caffe_or_skip()
    (checkout / "prototxt_gen/layers/activation/threshold.py").write_text(LAYER_TYPE, encoding="utf-8")
    run(checkout, "-m", "tests.golden", "Threshold")
    assert (checkout / "tests/golden/Threshold.npz").exists()
    tests = run(
        checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/layers/test_laws.py", "-k", "Threshold"
    )
    assert re.search(r"\d+ passed", tests)
    assert "threshold" in run(checkout, "-m", "prototxt_gen", "layers", "Threshold")


@pytest.mark.slow
def test_a_new_command(checkout: Path) -> None:
    """Its file, and its line in the table; the tests of commands find it."""
    (checkout / "prototxt_gen/cli/count_command.py").write_text(COMMAND, encoding="utf-8")
    table = checkout / "prototxt_gen/cli/__init__.py"
    before, mark, rest = table.read_text(encoding="utf-8").partition("COMMANDS = {\n")
    table.write_text(before + mark + TABLE_LINE + rest, encoding="utf-8")
    (checkout / "net.prototxt").write_text(
        'input: "data" input_shape { dim: 1 dim: 3 } layer { name: "r" type: "ReLU" bottom: "data" top: "r" }'
    )
    assert run(checkout, "-m", "prototxt_gen", "count", "net.prototxt").split() == ["1", "ReLU"]
    assert "Count the layers of each type." in run(checkout, "-m", "prototxt_gen", "--help")
    assert re.search(r"\d+ passed", run_tests(checkout, "tests/cli/test_help.py", "count"))
