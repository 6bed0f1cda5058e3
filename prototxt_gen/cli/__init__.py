"""The command line: `prototxt-gen COMMAND`. Commands are loaded only when they run, so that `--help` stays quick."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from prototxt_gen.errors import PrototxtGenError

COMMANDS = {
    "emit": ("emit", "Write a net's deploy, train_val and solver prototxts, and its card."),
    "models": ("models", "List the zoo."),
    "summary": ("summary", "Shapes, parameters, MACs and memory of a net, layer by layer."),
    "check": ("check", "Everything that is wrong with a net, at once."),
    "draw": ("draw", "Draw a net as SVG, PNG, DOT or HTML."),
    "view": ("view", "Open a net in Netron."),
    "convert": ("convert", "To ONNX, PyTorch, or another form of Caffe."),
    "layers": ("layers", "List the layer types and what can be done with each."),
}
"""Each command with the module that holds it, and its line of help."""


class LazyGroup(click.Group):
    """A group whose commands live in modules of this package, imported when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"prototxt_gen.cli.{COMMANDS[name][0]}_command")
        command: click.Command = getattr(module, name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from prototxt_gen.errors import nearest

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"there is no command {args[0]!r}{nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="prototxt-gen")
def cli() -> None:
    """Caffe nets without Caffe: generate, read, check, train, convert."""


def main() -> None:
    """Run the command line; an error of ours is one sentence on stderr and exit code 1."""
    try:
        cli(standalone_mode=True)
    except PrototxtGenError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away, as `head` does
        sys.exit(141)
