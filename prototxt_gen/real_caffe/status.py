"""`status`: which Caffe a Python has, found out in a child process, so that one that does not load cannot hurt."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

_QUESTION = """\
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
    """What `caffe` is in one Python.

    `problem` is empty if it loads. `wheel` is the version of prototxt-gen's own wheel, empty for another Caffe, of
    which `features` says nothing. `solvers` are class names.
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
        """Return whether `import caffe` works."""
        return not self.problem


def status(python: str | Path = sys.executable) -> Status:
    """Look at the Caffe of `python`."""
    done = subprocess.run([str(python), "-c", _QUESTION], capture_output=True, text=True)
    if done.returncode != 0 or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        return Status(f"does not load: {last}")
    facts = json.loads(done.stdout.strip().splitlines()[-1])
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
