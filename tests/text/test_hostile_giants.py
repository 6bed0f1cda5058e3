"""Parsing and checking of very large prototxts: each takes seconds, not minutes, and less than 1 GiB of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.fuzz

SECONDS, GIB = 20, 1.0
MANY = 25_000
INPUT = 'input: "d" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'
BOTTOM, RULE, DIM = 'bottom: "d" ', 'include { stage: "x" } ', "dim: 1 "
SCOPE = "a/" * 1000
CONV = "convolution_param {{ num_output: {} kernel_size: 1 }}"
GIANTS = {
    "messages inside each other": "layer { " * MANY,
    "unknown messages inside each other": 'layer { name: "x" relu_param { ' + "z { " * MANY,
    "closing brackets": "}" * 5_000_000,
    "a list that never ends": "dim: [" * MANY,
    "a name of megabytes": 'name: "' + "n" * 5_000_000 + '"',
    "a string of many parts": "name: " + '"a" ' * MANY,
    "comments alone": "# nothing\n" * 500_000,
    "bottoms": f'{INPUT}layer {{ name: "c" type: "Concat" top: "c" {BOTTOM * MANY} }}',
    "tops": INPUT + 'layer { name: "c" type: "Split" bottom: "d" ' + "".join(f'top: "{i}" ' for i in range(MANY)) + "}",
    "a million dims": f'{INPUT}layer {{ name: "r" type: "Reshape" bottom: "d" top: "r" '
    f"reshape_param {{ shape {{ {DIM * 1_000_000} }} }} }}",
    "rules": f'layer {{ name: "r" type: "ReLU" {RULE * MANY} }}',
    "a scope of a thousand parts": f'{INPUT}layer {{ name: "{SCOPE}" type: "ReLU" bottom: "d" top: "r" }}',
    "layers, one after the other": INPUT
    + "".join(
        f'layer {{ name: "l{i}" type: "Convolution" bottom: "{"b" * (i > 0)}{i or "d"}" top: "b{i + 1}" '
        f"{CONV.format(i % 5 + 1)} }}\n"
        for i in range(MANY)
    ),
    "layers in a circle": "".join(
        f'layer {{ name: "l{i}" type: "ReLU" bottom: "b{(i + 1) % MANY}" top: "b{i}" }}\n' for i in range(MANY)
    ),
    "layers and fields that nothing knows": INPUT
    + "".join(
        f'layer {{ name: "l" type: "Convoluti{i:x}" bottom: "no{i}" top: "b{i}" relu_par{i:x} {{ }} }}\n'
        for i in range(MANY)
    ),
}
CHILD = r"""
import json, re, sys, time
from pathlib import Path
from click.testing import CliRunner
from prototxt_gen.cli import cli
for arguments in json.loads(sys.argv[1]):
    start = time.process_time()
    result = CliRunner().invoke(cli, arguments)
    clean = result.exception is None or isinstance(result.exception, SystemExit)
    told = {"command": arguments[0], "seconds": time.process_time() - start}
    told |= {"fault": None if clean else repr(result.exc_info)}
    # not getrusage's peak, which starts at that of the process that started this one
    peak = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    print(json.dumps(told | {"gib": int(peak[1]) / 2**20}), flush=True)
"""


@pytest.mark.parametrize("name", GIANTS)
def test_very_large_files_take_little_time_and_memory(name: str, tmp_path: Path) -> None:
    """Processor time is counted, so that what else the machine does is not."""
    file = tmp_path / "net.prototxt"
    file.write_text(GIANTS[name])
    out = str(tmp_path / "out.prototxt")
    commands = [["summary", str(file)], ["check", str(file)], ["convert", "prototxt", str(file), "-o", out, "--force"]]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(commands)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["command"] for one in told] == ["summary", "check", "convert"]
    assert [one for one in told if one["fault"] or one["seconds"] > SECONDS or one["gib"] > GIB] == []
