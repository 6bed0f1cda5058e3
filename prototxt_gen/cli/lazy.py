"""A click group that imports a command only when it runs, and prints expected errors as one sentence."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import click

from prototxt_gen.cli.command import Group
from prototxt_gen.common.errors import PrototxtGenError, nearest
from prototxt_gen.common.optional_packages import EXTRAS, missing
from prototxt_gen.common.printable import safe_lines

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What a write to an open file ends with (stdout, or a temporary file) if the disk is full or gone."""


class LazyCommand(NamedTuple):
    """A command that is not imported yet: its module in prototxt_gen.cli, and its line in the list of commands."""

    module: str
    help: str


class OneLineError(click.ClickException):
    """An expected error: `error: …` on stderr, exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"error: {safe_lines(self.message)}", file=file, err=file is None)


class LazyGroup(Group):
    """A group of `LazyCommand`s. The module's function has the name of the command, with `_` for `-`."""

    def __init__(self, *args: Any, lazy: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.lazy:
            return None
        module = importlib.import_module(f"prototxt_gen.cli.{self.lazy[name].module}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.lazy and not args[0].startswith("-"):
            ctx.fail(f"there is no command {args[0]!r}{nearest(args[0], self.lazy)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in self.lazy.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PrototxtGenError as error:
            raise OneLineError(str(error)) from None
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            raise OneLineError(str(missing(error.name))) from None
        except OSError as error:
            if error.filename is not None or error.errno not in _DISK_ERRORS:
                raise
            raise OneLineError(f"cannot write any more: {error.strerror}") from None
