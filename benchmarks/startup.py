"""How long the command line takes to start, against `import click` alone, and to emit the deepest net of the zoo."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import Result

TITLE = "Start-up"
RUNS = 9
_HELP = ("-m", "prototxt_gen", "--help")
_EMIT = ("-m", "prototxt_gen", "emit", "attention-452-cifar", "--force", "-o")


def seconds(*arguments: str, runs: int = RUNS) -> float:
    """Return the wall time of Python with these arguments: the best of `runs`, after one to warm up."""
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
        return min([_once(arguments, environment) for _ in range(runs + 1)][1:])


def _once(arguments: tuple[str, ...], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def results() -> Iterator[Result]:
    """Yield what was measured and what is wanted."""
    click, shown = seconds("-c", "import click"), seconds(*_HELP)
    yield Result("`python -c 'import click'`", f"{1000 * click:.0f} ms")
    yield Result("`prototxt-gen --help`", f"{1000 * shown:.0f} ms")
    yield Result("ratio of the two", f"{shown / click:.2f}", "under 5", shown < 5 * click)
    with tempfile.TemporaryDirectory() as folder:
        emitted = seconds(*_EMIT, str(Path(folder) / "net"))
    yield Result("`prototxt-gen emit attention-452-cifar`", f"{emitted:.2f} s", "under 1 s", emitted < 1)
