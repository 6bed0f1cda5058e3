"""Without a package that only some uses need: one sentence that says how to install it, and no traceback."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest
from PIL import Image

from prototxt_gen import analyse, parse_net
from prototxt_gen.common.optional_packages import EXTRAS
from prototxt_gen.schema.dialect import find_dialect
from prototxt_gen.weights import write
from tests.support.sane_weights import sane_weights

WITHOUT = "import sys; [sys.modules.update({name: None}) for name in %r]; from prototxt_gen.cli import main; main()"
NET = """
name: "n" input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "r" type: "PReLU" bottom: "data" top: "r" }
"""


def test_extras_are_those_of_the_package() -> None:
    assert {extra for _, extra in EXTRAS.values()} <= {*(metadata("prototxt-gen").get_all("Provides-Extra") or [])}


@pytest.mark.parametrize(("absent", "command", "words"), [
    ("torch", "convert pytorch n.prototxt n.caffemodel -o made", "PyTorch is not installed"),
    ("torch", "convert pytorch n.prototxt n.caffemodel -o made.pt2 --no-verify", "PyTorch is not installed"),
    ("torch", "classify n.prototxt n.caffemodel n.png", "PyTorch is not installed"),
    ("torch", "demo -o made", "PyTorch is not installed: pip install 'prototxt-gen[torch]'"),
    ("onnx", "demo -o made", "ONNX is not installed"),
    ("onnx", "convert onnx n.prototxt n.caffemodel -o made.onnx", "ONNX is not installed"),
    ("h5py", "convert caffemodel n.caffemodel -o made.caffemodel.h5", "HDF5 weights need h5py: pip install h5py"),
    ("pydot", "draw n.prototxt -o made.dot", "pydot is not installed: pip install 'prototxt-gen[draw]'"),
])  # fmt: skip
def test_what_is_absent_is_told(tmp_path: Path, absent: str, command: str, words: str) -> None:
    analysis = analyse(parse_net(NET))
    (tmp_path / "n.prototxt").write_text(NET)
    write(tmp_path / "n.caffemodel", analysis, sane_weights(analysis), find_dialect("bvlc"))
    Image.new("RGB", (8, 8)).save(tmp_path / "n.png")
    run = [sys.executable, "-c", WITHOUT % ([absent],), *command.split()]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {words}"), done.stderr
    assert not list(tmp_path.glob("made*"))
