"""Run the numeric tests under the settings of five machines: `python -m tests.machines [pytest options]`.

PyTorch, oneDNN, MKL and OpenBLAS choose their kernels by the CPU, and each kernel rounds differently. Environment
variables make them choose the kernels of an older CPU. ONNX Runtime has no such variable.
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
    """Environment variables, and patterns that the libraries then print about themselves."""

    environment: Mapping[str, str]
    patterns: Sequence[str]


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
    "converters/test_convert", "converters/test_convert_attention", "converters/test_rewrite_bn",
    "converters/test_verify", "converters/test_write_caffemodel", "evaluate/test_classify", "evaluate/test_evaluate",
    "layers/test_batch_norm_strides", "layers/test_face_losses", "layers/test_flow_layers", "layers/test_laws",
    "layers/test_losses_and_detection", "layers/test_normalization", "layers/test_ocr_layers",
    "layers/test_python_layers", "layers/test_synopsys_layers", "layers/test_utility_layers",
    "layers/test_window_layers", "layers/test_window_sizes", "layers/test_yolo_detection_output",
    "net/test_random_nets", "passes/test_bn_fold", "passes/test_bn_merge", "passes/test_to_train_val",
    "real_caffe/test_overlay", "real_caffe/test_overlay_layers", "train/test_compiled", "train/test_conv_gradients",
    "train/test_distributed", "train/test_optimisers", "train/test_pycaffe_backend", "train/test_torch_backend",
    "train/test_torch_beside_caffe", "train/test_torch_runs", "train/test_unusual_nets",
    "weights/test_bn_fourth_blob", "weights/test_merged_bn_h5",
)  # fmt: skip
"""Test files whose results depend on floating-point rounding."""
PROBE = """
import numpy, torch
print("ATen", torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), "threads")
torch.ones(64, 64) @ torch.ones(64, 64)
torch.nn.functional.conv2d(torch.ones(8, 16, 32, 32), torch.ones(32, 16, 3, 3))
"""


def files() -> list[Path]:
    """Return the paths of the numeric tests. Raises FileNotFoundError if one does not exist."""
    paths = [TESTS / f"{name}.py" for name in NUMERIC]
    if missing := [str(path) for path in paths if not path.exists()]:
        raise FileNotFoundError(f"tests/machines.py names tests that do not exist: {', '.join(missing)}")
    return paths


def without_effect(machine: Machine) -> list[str]:
    """Return the patterns that the libraries do not print: this CPU does not have those kernels."""
    verbose = {"MKL_VERBOSE": "1", "ONEDNN_VERBOSE": "1", "OPENBLAS_VERBOSE": "2"}
    done = _run(machine, ["-c", PROBE], verbose)
    return [pattern for pattern in machine.patterns if not re.search(rf"{pattern}\b", done.stdout)]


def _run(machine: Machine, arguments: Sequence[str], more: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ONE_THREAD, **machine.environment, **more}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=TESTS.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def verdicts(options: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Yield for each machine whether all its tests passed, and a line of text."""
    tests = ["-m", "pytest", "-q", *map(str, files()), *options]
    for name, machine in MACHINES.items():
        if missing := without_effect(machine):
            yield False, f"{name}: not run; the libraries do not print {', '.join(missing)}"
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
