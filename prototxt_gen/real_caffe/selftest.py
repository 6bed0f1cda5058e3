"""The self-test: `selfcheck.py` in a child process of the Python that Caffe was installed for."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError

_SECONDS = 120


def run(python: Path) -> int:
    """Return the number of layer types of a Caffe that works; PrototxtGenError with its last words if it does not."""
    script = Path(__file__).with_name("selftest_script.py").read_text(encoding="utf-8")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "GLOG_minloglevel": "2"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [str(python.absolute()), "-"],
                input=script,
                capture_output=True,
                text=True,
                cwd=folder,
                env=environment,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise PrototxtGenError(f"its self-test did not end within {_SECONDS} seconds") from None
    if done.returncode != 0:
        words = "\n".join((done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-6:])
        raise PrototxtGenError(f"its self-test failed:\n{words}")
    return int(done.stdout.split()[-1])
