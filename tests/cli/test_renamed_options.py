"""Old spellings of options: they go on working with a warning, or the error names the new option."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from prototxt_gen.cli import cli
from prototxt_gen.cli.renamed_options import RenamedOption, renamed_option
from tests.cli.test_help import COMMANDS
from tests.support.data_samples import picture, write_picture
from tests.support.evaluation_support import DEPLOY, tiny

RENAMED = {
    ("caffe install", "--force"): "--rebuild",
    ("convert pytorch", "--format"): "--to",
    ("emit", "--unit"): "--unit-type",
    ("train", "--force"): "--restart",
    ("train", "--out"): "--output",
}
REPLACED = {
    ("emit", "--data", "lmdb"): "--data-layer lmdb",
    ("convert prototxt", "--data", "hdf5"): "--data-layer hdf5",
    ("convert prototxt", "--dialect", "ssd"): "--to-dialect ssd",
    ("eval", "--output", "prob"): "--top prob",
    ("classify", "--output", "prob"): "--top prob",
}


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def renamed_options() -> Iterator[tuple[str, str, str]]:
    for words, command in COMMANDS.items():
        for one in command.params:
            if isinstance(one, RenamedOption):
                yield words.removeprefix("prototxt-gen "), one.opts[0], one.new


def test_the_list_is_complete() -> None:
    assert {(words, old): new for words, old, new in renamed_options()} == RENAMED


@pytest.mark.parametrize("words", COMMANDS)
def test_old_spellings_are_not_in_the_help(words: str) -> None:
    with click.Context(COMMANDS[words]) as context:
        text = COMMANDS[words].get_help(context)
    for command, old in RENAMED:
        if words == f"prototxt-gen {command}":
            assert f"  {old} " not in text


@pytest.mark.parametrize(("words", "advice"), REPLACED.items())
def test_a_spelling_with_a_new_meaning_is_an_error_that_names_the_new_option(
    words: tuple[str, str, str], advice: str
) -> None:
    done = run(*words[0].split(), *words[1:])
    assert done.exit_code == 2
    assert advice in done.stderr
    assert "warning" not in done.stderr


@click.command()
@click.option("--output", type=click.Path(path_type=Path))
@renamed_option("--out", "--output", type=click.Path(path_type=Path))
@click.option("--restart", is_flag=True)
@renamed_option("--force", "--restart", is_flag=True)
@click.option("--size", required=True, type=int)
@renamed_option("--length", "--size", type=int)
def sample(**given: Any) -> None:
    click.echo(json.dumps(given, default=str))


@pytest.mark.parametrize(
    ("words", "given", "renamed"),
    [
        ("--size 1", (None, False, 1), {}),
        ("--size 1 --out a", ("a", False, 1), {"--out": "--output"}),
        ("--out=a --size 1", ("a", False, 1), {"--out": "--output"}),
        ("--size 1 --force", (None, True, 1), {"--force": "--restart"}),
        ("--length 2", (None, False, 2), {"--length": "--size"}),
        ("--size 1 --output --out", ("--out", False, 1), {}),
    ],
)
def test_an_old_spelling_works_as_the_new_one_and_warns(
    words: str, given: tuple[str | None, bool, int], renamed: dict[str, str]
) -> None:
    done = CliRunner().invoke(sample, words.split())
    assert json.loads(done.stdout) == dict(zip(("output", "restart", "size"), given, strict=True))
    assert done.stderr == "".join(f"warning: {old} is now called {new}\n" for old, new in renamed.items())


def test_old_and_new_together_are_refused() -> None:
    done = CliRunner().invoke(sample, ["--size", "1", "--out", "a", "--output", "b"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--out is the old name of --output: give --output alone" in done.stderr


def test_a_wrong_value_is_an_error_of_the_new_option() -> None:
    done = CliRunner().invoke(sample, ["--length", "long"])
    assert done.exit_code == 2
    assert "Invalid value for '--size'" in done.stderr


def test_unit_is_unit_type(tmp_path: Path) -> None:
    new = run("emit", "attention-56-cifar", "--unit-type", "resnet", "-o", tmp_path / "new")
    old = run("emit", "attention-56-cifar", "--unit", "resnet", "-o", tmp_path / "old")
    assert (new.exit_code, old.exit_code, new.stderr) == (0, 0, "")
    assert old.stderr == "warning: --unit is now called --unit-type\n"
    texts = [(tmp_path / folder / "deploy.prototxt").read_text() for folder in ("new", "old")]
    assert texts[0] == texts[1]


def test_a_number_for_top_names_count_unless_it_is_a_blob(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    write_picture(image, picture(1, 12, 12))
    files = (*tiny(tmp_path), image)
    done = run("classify", *files, "--top", 3)
    assert done.exit_code == 2
    assert "for the number of classes write --count 3" in done.stderr
    (tmp_path / "deploy.prototxt").write_text(DEPLOY.replace('top: "prob"', 'top: "3"'))
    done = run("classify", *files, "--top", 3, "--count", 1)
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 2
