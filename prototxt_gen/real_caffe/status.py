"""`status`: the Caffe that a Python has, examined in a child process because loading a broken one may crash."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

_STATUS_SCRIPT = """\
import json, pathlib, sys
try:
    import caffe
    types = list(caffe.layer_type_list())
except ModuleNotFoundError as error:
    print(json.dumps({"problem": "not installed" if error.name == "caffe" else str(error)}))
    sys.exit()
except (ImportError, AttributeError) as error:
    print(json.dumps({"problem": f"does not load: {error}"}))
    sys.exit()
folder = pathlib.Path(caffe.__file__).parent
note = folder / "build.json"
from importlib import metadata
try:
    wheel = metadata.version("prototxt-gen-caffe")
except metadata.PackageNotFoundError:
    wheel = ""
print(json.dumps({
    "version": caffe.__version__, "path": str(folder), "layers": types, "wheel": wheel,
    "built": json.loads(note.read_text()) if note.is_file() else {},
    "solvers": [name for name in dir(caffe) if name.endswith("Solver")],
}))
"""


@dataclass(frozen=True)
class Status:
    """The state of the module `caffe` in a Python.

    `problem` is empty if it loads. `wheel` is the version of prototxt-gen's own wheel, empty for any other Caffe, for
    which `features` is empty too. `solvers` are the names of the solver classes.
    """

    problem: str
    version: str = ""
    path: str = ""
    wheel: str = ""
    layers: tuple[str, ...] = ()
    solvers: tuple[str, ...] = ()
    features: dict[str, bool] = field(default_factory=dict)
    built: dict[str, object] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        """Whether `import caffe` works."""
        return not self.problem


def status(python: str | Path = sys.executable) -> Status:
    """Return the status of Caffe in `python`."""
    process = subprocess.run([str(python), "-c", _STATUS_SCRIPT], capture_output=True, text=True)
    if process.returncode != 0 or not process.stdout.strip():
        last_line = (process.stderr.strip().splitlines() or [f"the process ended with {process.returncode}"])[-1]
        return Status(f"does not load: {last_line}")
    facts = json.loads(process.stdout.strip().splitlines()[-1])
    if "problem" in facts:
        return Status(facts["problem"])
    return Status(
        problem="",
        version=facts["version"],
        path=facts["path"],
        wheel=facts["wheel"],
        layers=tuple(sorted(facts["layers"])),
        solvers=tuple(facts["solvers"]),
        features=dict(facts["built"].get("features", {})),
        built=facts["built"],
    )
