"""The demo as commands to type: what each step did, in the words of the command line."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prototxt_gen.demo.steps import BASE, SEED, Story, Trained, net_changes, solver_changes

_OPTIONS = {"kind": "data-layer", "train": "train-data", "test": "test-data"}
"""Options of `emit` that are not called as the field they set."""


def commands(story: Story, trained: Trained) -> list[str]:
    """Return the commands, to be run in the demo's folder; long ones are broken with a backslash."""
    weights = trained.weights.relative_to(story.net.parent)
    made = [_make(story, part, option) for part, option in (("train", f" --shuffle {SEED}"), ("test", ""))]
    return [
        *made,
        *_emit(story, trained.iterations),
        "prototxt-gen train net/solver.prototxt --output net/snapshots",
        *_each(f"net/deploy.prototxt {weights}", _preprocessing(story)),
        f"prototxt-gen eval net/train_val.prototxt {weights} --backend torch --backend onnx",
        "prototxt-gen eval model.onnx --data data/test_lmdb",
        "prototxt-gen eval pytorch --data data/test_lmdb",
    ]


def _make(story: Story, part: str, option: str) -> str:
    source = shlex.quote(_shown(story.pictures.path, story.net.parent))
    return f"prototxt-gen data make {source} --split {part}{option} -o data/{part}_lmdb"


def _shown(path: Path, home: Path) -> str:
    return str(path.relative_to(home) if path.is_relative_to(home) else path)


def _each(files: str, preprocessing: str) -> Iterator[str]:
    """Yield the conversions, with the preprocessing that they carry along."""
    yield f"prototxt-gen convert onnx {files}{preprocessing} -o model.onnx"
    yield f"prototxt-gen convert pytorch {files}{preprocessing} -o pytorch"
    yield f"prototxt-gen verify {files} --model model.onnx"


def _preprocessing(story: Story) -> str:
    changes = net_changes(story.pictures, story.sets)
    return f" --mean {_text(changes['mean'])} --scale {_text(changes['scale'])}"


def _emit(story: Story, iterations: int) -> Iterator[str]:
    yield f"prototxt-gen emit {BASE} -o net \\"
    changes = net_changes(story.pictures, story.sets)
    options = [_option(_OPTIONS.get(name, name.replace("_", "-")), value) for name, value in changes.items()]
    solver = [f"--solver {name}={_text(value)}" for name, value in solver_changes(story.sets, iterations).items()]
    lines = [*_rows(options), *_rows(solver)]
    yield from (f"    {line} \\" for line in lines[:-1])
    yield f"    {lines[-1]}"


def _option(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {_text(value)}"


def _rows(options: list[str], each: int = 5) -> Iterator[str]:
    for start in range(0, len(options), each):
        yield " ".join(options[start : start + each])


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "''"
    return str(value).lower() if isinstance(value, bool) else shlex.quote(str(value))
