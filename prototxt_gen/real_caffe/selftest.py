"""Self-test of an installed Caffe: runs `selftest_script.py` with the Python for which Caffe was installed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError

_TIMEOUT_SECONDS = 120


def run(python: Path) -> int:
    """Run the self-test and return the number of Caffe's layer types. Raises PrototxtGenError if it fails."""
    script = Path(__file__).with_name("selftest_script.py").read_text(encoding="utf-8")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "GLOG_minloglevel": "2"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            process = subprocess.run(
                [str(python.absolute()), "-"],
                input=script,
                capture_output=True,
                text=True,
                cwd=folder,
                env=environment,
                timeout=_TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise PrototxtGenError(f"its self-test did not end within {_TIMEOUT_SECONDS} seconds") from None
    if process.returncode != 0:
        last_lines = "\n".join((process.stderr.strip() or f"it ended with {process.returncode}").splitlines()[-6:])
        raise PrototxtGenError(f"its self-test failed:\n{last_lines}")
    return int(process.stdout.split()[-1])
