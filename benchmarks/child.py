"""Python code in a process of its own, its time told by itself and its memory watched from outside."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

MIB = 2**20
_POLL = 0.005
CONVERT = """
import sys, time
from pathlib import Path
import converters.onnx_export.onnx_writer, converters.onnx_export.net_to_onnx, prototxt_gen.net.render
from converters import read_net_with_weights
from converters.write_models import write_onnx
from prototxt_gen import layers
layers.all_layer_types()
start = time.perf_counter()
write_onnx(read_net_with_weights(sys.argv[1], sys.argv[2]), Path(sys.argv[3]), force=True, verify_output=False)
print(time.perf_counter() - start)
"""
"""Prototxt, weights and the ONNX file to write; modules are loaded before the clock starts."""


def watched(code: str, *arguments: Path) -> tuple[float, float]:
    """Run Python code that prints its own seconds; return these, and the most private memory it had, in MiB."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    most = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            most = max(most, _private(child.pid))
            time.sleep(_POLL)
        told = child.stdout.read() if child.stdout else ""
    return float(told.split()[-1]), most / MIB


def _private(pid: int) -> int:
    """Return the bytes of memory that no file stands behind. Linux alone tells."""
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
