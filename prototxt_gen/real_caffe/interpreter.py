"""Properties of a Python interpreter that a build for it needs: version, ABI, header folders; and its pip."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError

_INTERPRETER_FACTS_SCRIPT = """\
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
    """A CPython interpreter. `system`: it is the Linux distribution's own, with its headers in a separate package."""

    executable: Path
    version: tuple[int, int]
    includes: tuple[Path, ...]
    suffix: str
    platform: str
    system: bool

    @property
    def tag(self) -> str:
        """The wheel tag, e.g. cp311-cp311-linux_x86_64."""
        python = f"cp{self.version[0]}{self.version[1]}"
        return f"{python}-{python}-{self.platform.replace('-', '_').replace('.', '_')}"

    @property
    def has_headers(self) -> bool:
        """Whether its headers are installed, so that extension modules can be compiled for it."""
        return any((folder / "Python.h").is_file() for folder in self.includes)


def inspect_interpreter(python: Path) -> Interpreter:
    """Run `python` and return its properties. Raises PrototxtGenError if Caffe cannot be built for it."""
    try:
        process = subprocess.run(
            [str(python), "-c", _INTERPRETER_FACTS_SCRIPT], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise PrototxtGenError(f"{python}: does not run as a Python: {error}") from None
    facts = json.loads(process.stdout)
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
    """Run pip for `python`: its own pip, or else that of this Python. Raises PrototxtGenError with pip's last lines."""
    has_pip = subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode == 0
    command = [str(python), "-m", "pip"] if has_pip else [sys.executable, "-m", "pip", "--python", str(python)]
    process = subprocess.run(
        [*command, "--disable-pip-version-check", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if process.returncode == 0:
        return
    if "No module named pip" in process.stdout:
        raise RuntimeMissingError(f"{python} has no pip: run '{python} -m ensurepip'")
    tail = "\n".join(process.stdout.strip().splitlines()[-8:])
    raise PrototxtGenError(f"pip {arguments[0]} failed:\n{tail}")
