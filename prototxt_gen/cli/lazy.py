"""A click group whose commands are imported when they run, and whose errors are one sentence each."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import click

from prototxt_gen.common.errors import PrototxtGenError, nearest
from prototxt_gen.common.optional_packages import EXTRAS, missing
from prototxt_gen.common.printable import safe_lines

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What goes wrong where a disk is full or gone under an open file: stdout, or one in the temporary folder."""


class Lazy(NamedTuple):
    """A command that is not imported yet: the module of this package that holds it, and its line of help."""

    module: str
    help: str


class Refusal(click.ClickException):
    """One of our errors on its way out: `error: …` on stderr, exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"error: {safe_lines(self.message)}", file=file, err=file is None)


class LazyGroup(click.Group):
    """A group of `Lazy` commands. The function in the module is called as the command, `-` written as `_`."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **kwargs: Any) -> None:
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
            raise Refusal(str(error)) from None
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            raise Refusal(str(missing(error.name))) from None
        except OSError as error:
            if error.filename is not None or error.errno not in _NO_ROOM:
                raise
            raise Refusal(f"cannot write any more: {error.strerror}") from None
