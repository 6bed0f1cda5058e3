"""The README's plugin, in commands of their own: what it registers would stay in this process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen import caffemodel
from prototxt_gen.caffemodel import NewLayer
from tests.project.test_readme import README

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


def prototxt() -> str:
    """Return the README's layer behind a convolution."""
    (line,) = re.findall(r'^    (layer \{ name: "gain" .*)$', README.read_text(encoding="utf-8"), re.MULTILINE)
    return (
        'name: "mine" input: "data" input_shape { dim: 1 dim: 3 dim: 6 dim: 6 }\n'
        'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"'
        f" convolution_param {{ num_output: 4 kernel_size: 3 }} }}\n{line}\n"
    )


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from prototxt_gen.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


def test_the_plugin_of_the_readme_converts(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (plugin,) = [block for block in blocks if "ChannelGainParameter" in block]
    (tmp_path / "my_layers.py").write_text(plugin)
    (tmp_path / "net.prototxt").write_text(prototxt())
    blobs = [RNG.standard_normal(shape).astype("float32") for shape in ((4, 3, 3, 3), (4,), (4,))]
    layers = [NewLayer("conv", "Convolution", blobs=blobs[:2]), NewLayer("gain", "ChannelGain", blobs=blobs[2:])]
    caffemodel.write(tmp_path / "net.caffemodel", layers, "mine")
    files = ["net.prototxt", "net.caffemodel"]
    refused = run(tmp_path, "convert", "onnx", *files)
    assert refused.returncode == 1 and "'gain' (ChannelGain)" in refused.stderr
    for kind, out in (("onnx", "net.onnx"), ("pytorch", "made")):
        done = run(tmp_path, "convert", kind, *files, "-o", out, "--plugin", "my_layers.py")
        assert done.returncode == 0, done.stderr
        assert "verified: 2 runtimes agree" in done.stderr.replace("3 runtimes", "2 runtimes"), done.stderr
    assert "ChannelGain" not in (tmp_path / "made" / "model.py").read_text(), "it needs nothing of the plugin"
