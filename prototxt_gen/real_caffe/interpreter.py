"""What there is to know of a Python before building for it: ABI, header folders, the environment's pip."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError

_QUESTION = """\
import json, platform, sys, sysconfig
print(json.dumps({
    "version": list(sys.version_info[:2]),
    "implementation": sys.implementation.name,
    "include": sysconfig.get_path("include"),
    "platinclude": sysconfig.get_path("platinclude"),
    "suffix": sysconfig.get_config_var("EXT_SUFFIX"),
    "platform": sysconfig.get_platform(),
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "system": sys.base_prefix == "/usr",
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """One CPython; `system` if it belongs to the distribution, whose headers are then a package of their own."""

    executable: Path
    version: tuple[int, int]
    includes: tuple[Path, ...]
    suffix: str
    platform: str
    system: bool

    @property
    def tag(self) -> str:
        """Return the wheel tag, e.g. cp311-cp311-linux_x86_64."""
        python = f"cp{self.version[0]}{self.version[1]}"
        return f"{python}-{python}-{self.platform.replace('-', '_').replace('.', '_')}"

    @property
    def has_headers(self) -> bool:
        """Return whether extension modules can be compiled for it."""
        return any((folder / "Python.h").is_file() for folder in self.includes)


def inspect(python: Path) -> Interpreter:
    """Ask `python` about itself; PrototxtGenError if it does not run or Caffe cannot be built for it."""
    try:
        answer = subprocess.run([str(python), "-c", _QUESTION], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PrototxtGenError(f"{python}: does not run as a Python: {error}") from None
    facts = json.loads(answer.stdout)
    version = (int(facts["version"][0]), int(facts["version"][1]))
    if facts["implementation"] != "cpython" or facts["free_threaded"] or version < (3, 10):
        raise PrototxtGenError(f"{python}: Caffe is built for CPython 3.10 and later, not free-threaded")
    if not facts["platform"].startswith("linux"):
        raise PrototxtGenError(f"{python}: Caffe is built on Linux only, not on {facts['platform']}")
    return Interpreter(
        executable=python,
        version=version,
        includes=tuple(Path(facts[name]) for name in dict.fromkeys(("include", "platinclude"))),
        suffix=facts["suffix"],
        platform=facts["platform"],
        system=facts["system"],
    )


def pip(python: Path, *arguments: str) -> None:
    """Run pip for `python`, its own or, if it has none, this Python's; PrototxtGenError carries pip's last lines."""
    own = subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode == 0
    start = [str(python), "-m", "pip"] if own else [sys.executable, "-m", "pip", "--python", str(python)]
    done = subprocess.run(
        [*start, "--disable-pip-version-check", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode == 0:
        return
    if "No module named pip" in done.stdout:
        raise RuntimeMissingError(f"{python} has no pip: run '{python} -m ensurepip'")
    tail = "\n".join(done.stdout.strip().splitlines()[-8:])
    raise PrototxtGenError(f"pip {arguments[0]} failed:\n{tail}")
