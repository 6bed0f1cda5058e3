"""The demo as a list of commands for the command line that do the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prototxt_gen.demo.results import DemoResults, TrainingResult
from prototxt_gen.demo.steps import BASE_MODEL, SEED, net_changes, solver_changes

_OPTIONS = {"kind": "data-layer", "train": "train-data", "test": "test-data"}
"""Options of `emit` whose name differs from that of the field they set."""


def equivalent_commands(results: DemoResults, trained: TrainingResult) -> list[str]:
    """Return the lines of the commands, to be run in the demo's folder; long commands are wrapped by a backslash."""
    weights = trained.weights.relative_to(results.net.parent)
    data_commands = [
        _data_make_command(results, part, option) for part, option in (("train", f" --shuffle {SEED}"), ("test", ""))
    ]
    return [
        *data_commands,
        *_emit_command(results, trained.iterations),
        "prototxt-gen train net/solver.prototxt --output net/snapshots",
        *_convert_and_verify_commands(f"net/deploy.prototxt {weights}", _preprocessing_options(results)),
        f"prototxt-gen eval net/train_val.prototxt {weights} --backend torch --backend onnx",
        "prototxt-gen eval model.onnx --data data/test_lmdb",
        "prototxt-gen eval pytorch --data data/test_lmdb",
    ]


def _data_make_command(results: DemoResults, part: str, option: str) -> str:
    source = shlex.quote(_relative_path(results.pictures.path, results.net.parent))
    return f"prototxt-gen data make {source} --split {part}{option} -o data/{part}_lmdb"


def _relative_path(path: Path, home: Path) -> str:
    return str(path.relative_to(home) if path.is_relative_to(home) else path)


def _convert_and_verify_commands(files: str, preprocessing: str) -> Iterator[str]:
    """Yield the commands that convert and verify the net, with options for the preprocessing in the metadata."""
    yield f"prototxt-gen convert onnx {files}{preprocessing} -o model.onnx"
    yield f"prototxt-gen convert pytorch {files}{preprocessing} -o pytorch"
    yield f"prototxt-gen verify {files} --model model.onnx"


def _preprocessing_options(results: DemoResults) -> str:
    changes = net_changes(results.pictures, results.sets)
    return f" --mean {_option_value(changes['mean'])} --scale {_option_value(changes['scale'])}"


def _emit_command(results: DemoResults, iterations: int) -> Iterator[str]:
    yield f"prototxt-gen emit {BASE_MODEL} -o net \\"
    changes = net_changes(results.pictures, results.sets)
    options = [_option(_OPTIONS.get(name, name.replace("_", "-")), value) for name, value in changes.items()]
    solver = [
        f"--solver {name}={_option_value(value)}" for name, value in solver_changes(results.sets, iterations).items()
    ]
    lines = [*_option_lines(options), *_option_lines(solver)]
    yield from (f"    {line} \\" for line in lines[:-1])
    yield f"    {lines[-1]}"


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {_option_value(value)}"


def _option_lines(options: list[str], each: int = 5) -> Iterator[str]:
    for start in range(0, len(options), each):
        yield " ".join(options[start : start + each])


def _option_value(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "''"
    return str(value).lower() if isinstance(value, bool) else shlex.quote(str(value))
