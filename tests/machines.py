"""Run the numeric tests as on other machines: `python -m tests.machines [options of pytest]`, one line for each.

PyTorch, oneDNN, MKL and OpenBLAS choose their kernels by the CPU, and each rounds otherwise; environment variables let
them take those of an older CPU. ONNX Runtime has no such variable.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GLOG_minloglevel": "2"}


class Machine(NamedTuple):
    """Environment variables, and what the libraries then say of themselves."""

    environment: Mapping[str, str]
    signs: Sequence[str]


def _cpu(aten: str, onednn: str, mkl: str, openblas: str) -> dict[str, str]:
    return {
        "ATEN_CPU_CAPABILITY": aten,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "MKL_CBWR": mkl,
        "OPENBLAS_CORETYPE": openblas,
    }


MACHINES = {
    "this machine": Machine({}, ["ATen"]),
    "AVX2": Machine(_cpu("avx2", "AVX2", "AVX2", "Haswell"), ["ATen AVX2", "isa:Intel AVX2", "Core: Haswell"]),
    "AVX": Machine(
        _cpu("default", "AVX", "AVX", "Sandybridge"), ["ATen DEFAULT", "isa:Intel AVX", "Core: Sandybridge"]
    ),
    "old CPU": Machine(
        _cpu("default", "SSE41", "COMPATIBLE", "Prescott"),
        ["ATen DEFAULT", "isa:Intel SSE4.1", "CNR:COMPATIBLE", "Core: (Prescott|Katmai)"],
    ),
    "four threads": Machine(
        {"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4", "MKL_DYNAMIC": "FALSE"}, ["4 threads"]
    ),
}
NUMERIC = (
    "back_to_caffe", "classify", "convert", "convert_attention", "convert_bn", "convert_models", "evaluate",
    "face_rooms", "flow_rooms", "fold", "fourth_blob", "laws", "losses_and_detection", "merged_bn_h5", "merging",
    "norm_strides", "normalisation", "ocr_rooms", "optimisers", "overlay", "overlay_layers", "properties",
    "python_classes", "structural_rooms", "synopsys_rooms", "train_odd_nets", "train_pycaffe", "train_sums",
    "train_torch", "train_torch_caffe", "train_torch_processes", "train_torch_runs", "training_pass", "verify",
    "window_rooms", "window_sizes", "yolo_output",
)  # fmt: skip
"""The files, test_*.py, whose verdict rests on floating point."""
PROBE = """
import numpy, torch
print("ATen", torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), "threads")
torch.ones(64, 64) @ torch.ones(64, 64)
torch.nn.functional.conv2d(torch.ones(8, 16, 32, 32), torch.ones(32, 16, 3, 3))
"""


def files() -> list[Path]:
    """Return the numeric tests; FileNotFoundError where one is not there."""
    there = {path.stem.removeprefix("test_"): path for path in TESTS.rglob("test_*.py")}
    if missing := set(NUMERIC) - there.keys():
        raise FileNotFoundError(f"tests/machines.py names tests that are not there: {', '.join(sorted(missing))}")
    return [there[name] for name in NUMERIC]


def without_effect(machine: Machine) -> list[str]:
    """Return the signs that the libraries do not show: the machine lacks what is asked for."""
    verbose = {"MKL_VERBOSE": "1", "ONEDNN_VERBOSE": "1", "OPENBLAS_VERBOSE": "2"}
    done = _run(machine, ["-c", PROBE], verbose)
    return [sign for sign in machine.signs if not re.search(rf"{sign}\b", done.stdout)]


def _run(machine: Machine, arguments: Sequence[str], more: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ONE_THREAD, **machine.environment, **more}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=TESTS.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def verdicts(options: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Yield for each machine whether all tests passed there, and what to say of it."""
    tests = ["-m", "pytest", "-q", *map(str, files()), *options]
    for name, machine in MACHINES.items():
        if missing := without_effect(machine):
            yield False, f"{name}: not run; the libraries here do not say {', '.join(missing)}"
            continue
        done = _run(machine, tests, {})
        last = done.stdout.rstrip().rpartition("\n")[2].strip("= ")
        passed = done.returncode == 0
        yield passed, f"{name}: {last}" if passed else f"{done.stdout}\n{name}: {last}"


if __name__ == "__main__":
    results = []
    for passed, words in verdicts(sys.argv[1:]):
        print(words, flush=True)
        results.append(passed)
    sys.exit(not all(results))
