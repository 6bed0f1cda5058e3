"""Running commands on damaged or malicious files in a child process, with exit code, seconds and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

MB = 1e6
SECONDS, MEMORY = 2, 500 * MB
_CHILD = r"""
import json, re, sys, time
from pathlib import Path
from click.testing import CliRunner
import h5py, onnx, onnxruntime, safetensors.torch, torch, torch.export
from prototxt_gen.cli import cli
torch.set_num_threads(1)
for number, arguments in enumerate(json.loads(Path(sys.argv[1]).read_text())):
    start = time.process_time()
    result = CliRunner().invoke(cli, arguments)
    seconds = time.process_time() - start
    clean = result.exception is None or isinstance(result.exception, SystemExit)
    fault = "" if clean else repr(result.exception)
    # not getrusage's peak, which starts at that of the process that started this one
    peak = int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    told = [number, result.exit_code, result.stdout[-4000:], result.stderr, fault, seconds, peak]
    print("told " + json.dumps(told), flush=True)
"""


class CommandResult(NamedTuple):
    """The result of a command. `fault`: an exception that is not a PrototxtGenError; `peak`: peak memory in bytes."""

    number: int
    code: int
    out: str
    error: str
    fault: str
    seconds: float
    peak: int

    @property
    def sentence(self) -> str:
        """The error message: the line that begins with `error: ` and the lines listed below it."""
        return self.error[self.error.find("error: ") :] if "error: " in self.error else ""

    @property
    def ended(self) -> bool:
        """Whether the command ended regularly: with a result, a No of `verify`, or an error message."""
        said_no = '"verified": false' in self.out or "NOT VERIFIED" in self.out
        return not self.fault and (self.code == 0 or (self.code == 1 and (bool(self.sentence) or said_no)))

    def __str__(self) -> str:
        told = self.fault or self.error[-400:] or self.out[-200:]
        return f"exit code {self.code}, {self.seconds:.2f} s, {self.peak / MB:.0f} MB: {told}"


def run(commands: Sequence[Sequence[str | Path]], folder: Path) -> list[CommandResult]:
    """Run commands one after another. A crash of the process is an AssertionError that names the command."""
    (folder / "commands.json").write_text(json.dumps([[str(word) for word in command] for command in commands]))
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder / "commands.json")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    told = [CommandResult(*json.loads(line[5:])) for line in done.stdout.splitlines() if line.startswith("told ")]
    assert len(told) == len(commands), f"{commands[len(told)]} ended the process: {done.stderr[-1500:]}"
    return told


def damaged(data: bytes, count: int, seed: int = 0) -> list[bytes]:
    """Return damaged copies of a file: truncated, with flipped bits, overwritten bytes, lost or repeated pieces."""
    random, made = Random(seed), [b"", data[:1], data[: len(data) // 2], data[:-1]]
    while len(made) < count:
        pieces = bytearray(data)
        for _ in range(random.choice([1, 1, 3, 10])):
            at = random.randrange(min(len(pieces), random.choice([64, 512, len(pieces)])))
            kind = random.randrange(5)
            if kind == 0:
                pieces[at] ^= 1 << random.randrange(8)
            elif kind == 1:
                pieces[at : at + 4] = random.choice(
                    [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\x80" * 9]
                )
            elif kind == 2:
                del pieces[at : at + random.choice([1, 8, 100])]
            elif kind == 3:
                pieces[at:at] = pieces[at : at + random.choice([1, 8, 100])]
            else:
                pieces[at] = random.randrange(256)
            if not pieces:
                break
        made.append(bytes(pieces))
    return made


def faults(told: Sequence[CommandResult], commands: Sequence[Sequence[str | Path]], sound: int) -> list[str]:
    """Return the failures of all commands after the first `sound` ones, which give the normal memory use."""
    usual = max(one.peak for one in told[:sound])
    wrong = [one for one in told[:sound] if one.code]
    peak = usual
    for one in told[sound:]:
        if not one.ended or one.seconds > SECONDS or one.peak > max(peak, usual + MEMORY):
            wrong.append(one)
        peak = max(peak, one.peak)
    return [f"{' '.join(map(str, commands[one.number]))}: {one}" for one in wrong]
