"""Other converters of Caffe nets, each in a throw-away environment: does it install, convert, and convert rightly.

    python -m benchmarks peers [SECONDS]

Each is installed by pip into an environment of its own, which is deleted afterwards, and given VGG-16 and Attention-56
as this package writes them, with random weights; SECONDS (900) and 16 GB of address space at most for each conversion.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import convert, inference
from benchmarks.table import machine, write_down

TITLE = "Other converters"
MOST_BYTES = 16 * 2**30
MOST_SECONDS = 900
_INSTALL_SECONDS = 600
_MNN = """
import sys, _tools
net, weights, out = sys.argv[1:]
_tools.mnnconvert(["mnnconvert", "-f", "CAFFE", "--modelFile", weights, "--prototxt", net, "--MNNModel", out,
                   "--bizCode", "none"])
"""
"""The C extension itself: the script `mnnconvert` around it installs another package first."""
_RUN_MNN = """
import sys, MNN, numpy as np
model, fed, out = sys.argv[1:]
x = np.load(fed)
net = MNN.Interpreter(model)
session = net.createSession()
caffes = MNN.Tensor_DimensionType_Caffe
net.getSessionInput(session).copyFrom(MNN.Tensor(x.shape, MNN.Halide_Type_Float, x, caffes))
net.runSession(session)
made = net.getSessionOutput(session)
host = MNN.Tensor(made.getShape(), MNN.Halide_Type_Float, np.zeros(made.getShape(), "float32"), caffes)
made.copyToHostTensor(host)
np.save(out, np.array(host.getData(), "float32"))
"""


@dataclass(frozen=True)
class Peer:
    """A package, the file it writes, and its command for (environment, prototxt, weights, file to write)."""

    package: str
    suffix: str
    command: Callable[[Path, Path, Path, Path], list[str]]


PEERS = (
    Peer(
        "caffe2onnx",
        ".onnx",
        lambda env, net, weights, out: [
            *(str(env / "bin/python"), "-m", "caffe2onnx.convert", "--prototxt", str(net)),
            *("--caffemodel", str(weights), "--onnx", str(out)),
        ],
    ),
    Peer(
        "caffe-onnx",
        ".onnx",
        lambda env, net, weights, out: [
            *(str(env / "bin/caffe2onnx"), str(net), str(weights), out.stem, str(out.parent)),
        ],
    ),
    Peer(
        "MNN",
        ".mnn",
        lambda env, net, weights, out: [str(env / "bin/python"), "-c", _MNN, str(net), str(weights), str(out)],
    ),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended: `fault` is empty where it ended well."""

    seconds: float
    memory: int
    fault: str = ""

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s, {self.memory / 2**30:.1f} GiB"


def limited(command: Sequence[str], seconds: float, place: Path) -> Ended:
    """Run a command within limits of time and memory; what it leaves running is killed with it."""
    start = time.perf_counter()
    with (place / "log.txt").open("w+") as log:
        child = subprocess.Popen(
            command,
            cwd=place,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES)),
        )
        most = 0
        while child.poll() is None and time.perf_counter() - start < seconds:
            most = max(most, _resident(child.pid))
            time.sleep(0.05)
        late = child.poll() is None
        if late:
            os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
        log.seek(0)
        words = _last_words(log.read())
    took = time.perf_counter() - start
    fault = f"killed after {seconds:.0f} s" if late else f"fails: {words}" if code else ""
    return Ended(took, most, fault)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _last_words(text: str) -> str:
    """Return the last line that says what went wrong, no path of this machine in it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line and not line.startswith("note")]
    last = (errors or lines or ["without a word"])[-1][:160]
    return " ".join(word for word in last.replace("|", "\\|").split() if "/" not in word)


def installed(peer: Peer, env: Path) -> Ended:
    """Make an environment and install the package and what it asks for."""
    made = limited([sys.executable, "-m", "venv", str(env)], 120, env.parent)
    if made.fault:
        return made
    return limited([str(env / "bin/pip"), "install", "-q", peer.package], _INSTALL_SECONDS, env.parent)


def outcome(peer: Peer, env: Path, net: tuple[Path, Path], x: Path, truth: Any, seconds: float) -> str:
    """Convert one net and say what became of it."""
    out = env.parent / f"{net[0].stem}{peer.suffix}"
    ended = limited(peer.command(env, *net, out), seconds, env.parent)
    if ended.fault:
        return f"{ended.fault} ({ended})"
    if not out.is_file():
        return f"ends as if well, and writes nothing ({ended})"
    try:
        made = _run(peer, env, out, x)
    except Exception as error:
        return f"writes a file that does not run: {_last_words(str(error))} ({ended})"
    if made.size != truth.size:
        return f"{made.size} numbers instead of {truth.size} ({ended})"
    apart = float(np.abs(made.ravel() - truth.ravel()).max() / np.abs(truth).max())
    return f"{'right' if apart <= 1e-3 else '**silently wrong**'}, off by {apart:.1e} ({ended})"


def _run(peer: Peer, env: Path, out: Path, x: Path) -> Any:
    if peer.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: np.load(x)})[-1]
    made = env.parent / "made.npy"
    made.unlink(missing_ok=True)
    ended = limited([str(env / "bin/python"), "-c", _RUN_MNN, str(out), str(x), str(made)], 120, env.parent)
    if ended.fault:
        raise ValueError(ended.fault)
    return np.load(made)


def true_output(net: tuple[Path, Path], x: Any) -> Any:
    """Return what the net gives in real Caffe; in PyTorch where there is none, or its protobuf refuses the size."""
    from converters import read_net_with_weights
    from converters.verification.runtimes import RUNTIMES
    from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
    from prototxt_gen.net.lowering_checks import computed_outputs

    caffe_model = read_net_with_weights(*net)
    (output,) = computed_outputs(caffe_model.net)
    for name in ("pycaffe", "torch"):
        try:
            return RUNTIMES[name](caffe_model, {"data": x})[output.blob]
        except PrototxtGenError as error:
            print(f"{net[0].name}: {name}: {error}", file=sys.stderr)
    raise RuntimeMissingError("neither real Caffe nor PyTorch runs it")


def rows(seconds: float) -> Iterator[tuple[str, str, str]]:
    """Yield (package, net, what became of it)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nets = {"VGG-16": convert.vgg(folder), "Attention-56": inference.write_net(folder)[:2]}
        x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype="float32")
        np.save(folder / "x.npy", x)
        truths = {net: true_output(files, x) for net, files in nets.items()}
        for peer in PEERS:
            with tempfile.TemporaryDirectory() as throw_away:
                env = Path(throw_away) / "env"
                there = installed(peer, env)
                if there.fault:
                    yield peer.package, "", f"does not install: {there.fault}"
                    continue
                for net, files in nets.items():
                    yield peer.package, net, outcome(peer, env, files, folder / "x.npy", truths[net], seconds)


def main(arguments: Sequence[str]) -> int:
    """Try every peer and write the table."""
    lines = ["| package | net | what became of it |", "|---|---|---|"]
    for row in rows(float(arguments[0]) if arguments else MOST_SECONDS):
        print("  ".join(filter(None, row)), flush=True)
        lines.append(f"| {' | '.join(row)} |")
    write_down("peers", f"{machine()}.\n\n" + "\n".join(lines))
    return 0
