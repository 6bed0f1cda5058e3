"""README.md is right: its Python runs, its commands exist with those options, and the light ones run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from prototxt_gen import analyse, layers, model, parse_net, weights
from prototxt_gen.cli import cli
from prototxt_gen.schema.dialect import find_dialect
from tests.support.sane_weights import sane_weights

README = Path(__file__).parents[2] / "README.md"
LIGHT = ("models", "emit", "summary", "check", "layers", "convert prototxt")


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[list[str]]:
    lines = README.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line.partition(" #")[0])[1:] for line in lines if line.startswith("    prototxt-gen ")]


@pytest.mark.parametrize("block", python_blocks())
def test_python_runs(block: str, tmp_path: Path) -> None:
    """In a process of its own: a layer type that it defines is registered."""
    net = 'input: "data" input_shape { dim: 1 dim: 3 } layer { name: "r" type: "PReLU" bottom: "data" top: "r" }'
    (tmp_path / "deploy.prototxt").write_text(net)
    analysis = analyse(parse_net(net))
    weights.write(tmp_path / "net.caffemodel", analysis, sane_weights(analysis), find_dialect("bvlc"))
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command_and_options_exist(words: list[str]) -> None:
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"no command {words[0]}"
        command, words = found, words[1:]
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    known = {option for parameter in shown for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known | {"--help"}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that README's commands name."""
    model("attention-56-cifar").write(tmp_path)
    (tmp_path / "net.prototxt").write_text((tmp_path / "deploy.prototxt").read_text())
    (tmp_path / "snapshots").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [w for w in commands() if " ".join(w).startswith(LIGHT)], ids=" ".join)
def test_light_commands_run(words: list[str], workplace: Path) -> None:
    force = ["--force"] if "-o" in words else []
    result = CliRunner().invoke(cli, [*words, *force])
    assert result.exit_code == 0, result.output


def test_as_many_layer_types_as_told() -> None:
    assert f"{len(layers.all_layer_types())} layer types" in README.read_text(encoding="utf-8")
