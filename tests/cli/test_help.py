"""The help of every command: plain words, choices as the code has them, and examples that run as they stand."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from prototxt_gen.blocks import attention_module as attention_block
from prototxt_gen.blocks import basic_blocks
from prototxt_gen.cli import cli, emit_command, options, train_command
from prototxt_gen.cli.command import Command, Group
from prototxt_gen.cli.convert_bn import FORK_OF_FORM
from prototxt_gen.models import residual_nets
from prototxt_gen.passes.to_train_val import DATA_KINDS
from prototxt_gen.schema.dialect import DIALECTS

RIDDLES = (
    "unless told",
    "as told",
    "carried along",
    "anew",
    "room",
    "what runs",
    "what computes",
    "may be given again",
)


def walk(command: click.Command = cli, context: click.Context | None = None) -> Iterator[tuple[str, click.Command]]:
    """Yield every command and group with the words it is called by."""
    context = click.Context(command, parent=context, info_name=command.name if context else "prototxt-gen")
    yield context.command_path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found, context)


COMMANDS = dict(walk())


def examples(command: click.Command) -> tuple[str, ...]:
    assert isinstance(command, (Command, Group))
    return command.examples


def help_text(words: str) -> str:
    command = COMMANDS[words]
    with click.Context(command, info_name=words) as context:
        return command.get_help(context)


def visible_options(command: click.Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option) and not one.hidden]


def test_all_commands_are_there() -> None:
    assert len(COMMANDS) == 1 + 15 + 5 + 3 + 2  # prototxt-gen, its commands, those of convert, data and caffe


@pytest.mark.parametrize("words", COMMANDS)
def test_help_ends_with_one_or_two_examples(words: str) -> None:
    shown = examples(COMMANDS[words])
    assert 1 <= len(shown) <= 2
    assert help_text(words).split("Examples:\n")[1].splitlines() == [f"  {line}" for line in shown]
    assert all(line.startswith(words) for line in shown)


@pytest.mark.parametrize("line", dict.fromkeys(line for command in COMMANDS.values() for line in examples(command)))
def test_an_example_parses(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its command and options exist, values are of their types, nothing is missing, and no option is an old one."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="prototxt-gen")
    while isinstance(command, click.Group):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    command.make_context(command.name, words, parent=context)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", COMMANDS)
def test_help_is_in_plain_words(words: str) -> None:
    text = " ".join(help_text(words).split()).lower()
    assert [riddle for riddle in RIDDLES if re.search(rf"\b{riddle}\b", text)] == []
    for option in visible_options(COMMANDS[words]):
        assert option.help, option.name
        assert option.help[0].isupper() or option.help.startswith(("torch", "ONNX")), option.help
        assert option.help.endswith((".", "…")), option.help


def test_one_option_has_one_type_in_every_command() -> None:
    """A file, a blob or a number: never one in one command and another elsewhere."""
    kinds: dict[str, set[str]] = {}
    for command in COMMANDS.values():
        for option in visible_options(command):
            for spelling in option.opts:
                kinds.setdefault(spelling, set()).add(_kind(option))
    different = {spelling for spelling, found in kinds.items() if len(found) > 1}
    assert different == {"--input-size", "--resize"}  # a square in `emit`, any size where the net is read


def _kind(option: click.Option) -> str:
    if isinstance(option.type, click.Path):
        return "path"
    return "choice" if isinstance(option.type, click.Choice) else option.type.name.removesuffix(" range")


def test_choices_are_those_of_the_code() -> None:
    pairs = [
        (emit_command.UNIT_TYPES.choices, residual_nets.UNITS),
        (emit_command.STEMS.choices, residual_nets.STEMS),
        (emit_command.ATTENTIONS.choices, attention_block.FUSIONS),
        (emit_command.MASK_ACTIVATIONS.choices, attention_block.MASK_ACTIVATIONS),
        (emit_command.MASKS.choices, attention_block.MASKS),
        (emit_command.BN_STYLES.choices, basic_blocks.BN_STYLES),
        (emit_command.UPSAMPLINGS.choices, basic_blocks.UPSAMPLINGS),
        (options.DATA_LAYERS, DATA_KINDS),
        (options.FORK.choices, tuple(DIALECTS)),
    ]
    for shown, known in pairs:
        assert tuple(shown) == tuple(known)


def test_choices_are_those_of_heavy_modules() -> None:
    from converters.caffemodel_export.rewrite_bn import BN_FORMS
    from converters.write_models import PYTORCH_FORMATS
    from prototxt_gen.cli.convert_pytorch import FORMATS as SHOWN_FORMATS
    from prototxt_gen.cli.eval_options import RUNTIMES
    from prototxt_gen.data.source_detection import DATA_SET_KINDS, SOURCE_KINDS
    from prototxt_gen.evaluate.predictors import BACKENDS as PREDICTORS
    from prototxt_gen.train.backend import BACKENDS

    assert (options.SOURCE_KINDS, options.STORED_KINDS) == (SOURCE_KINDS, DATA_SET_KINDS)
    assert tuple(FORK_OF_FORM) == BN_FORMS
    assert tuple(SHOWN_FORMATS.choices) == PYTORCH_FORMATS
    assert tuple(options.BACKEND.choices) == tuple(BACKENDS)
    assert tuple(RUNTIMES.choices) == tuple(PREDICTORS)


def test_precisions_are_those_of_the_torch_backend() -> None:
    pytest.importorskip("torch")
    from prototxt_gen.train.device import PRECISIONS

    assert tuple(train_command.PRECISIONS.choices) == PRECISIONS


def test_no_help_loads_a_heavy_package() -> None:
    """All modules of the command line at once: what none of them imports, no `--help` imports."""
    code = (
        "import sys, click\nfrom prototxt_gen.cli import cli\n"
        "def load(group):\n"
        "    for name in group.list_commands(None):\n"
        "        found = group.get_command(None, name)\n"
        "        isinstance(found, click.Group) and load(found)\n"
        "load(cli)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint({"numpy", "rich", "torch", "onnx", "google", "h5py", "lmdb", "cv2"})
