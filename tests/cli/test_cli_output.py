"""What a command prints, and where it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="a device that is always full is Linux's")
@pytest.mark.parametrize("arguments", [("layers",), ("layers", "--json"), ("models",)], ids=" ".join)
def test_an_output_on_a_full_disk_is_one_sentence(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "prototxt_gen", *arguments]
    with FULL.open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write any more: No space left on device\n"
