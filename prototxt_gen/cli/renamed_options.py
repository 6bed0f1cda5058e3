"""Old spellings of options.

An option that only got another name goes on working under the old one, hidden, with a warning (`renamed_option`).
A spelling that means something else now is an error that names the new option (`replaced_option`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import click


class RenamedOption(click.Option):
    """The old spelling of an option: hidden; hands its value to the new option and warns on stderr."""

    def __init__(self, param_decls: Sequence[str], new: str, **attributes: Any) -> None:
        super().__init__(param_decls, hidden=True, expose_value=False, is_eager=True, **attributes)
        self.new = new

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        if self.name in opts and not ctx.resilient_parsing:
            old, name = self.opts[0], _parameter_name(ctx.command, self.new)
            if name in opts:
                raise click.UsageError(f"{old} is the old name of {self.new}: give {self.new} alone", ctx)
            click.echo(f"warning: {old} is now called {self.new}", err=True)
            cast("dict[str, Any]", opts)[name] = opts[self.name]  # eager: the new option reads its value after this
        return super().handle_parse_result(ctx, {}, args)


class ReplacedOption(click.Option):
    """A spelling with a new meaning, which this command has no use for: an error that names the option to use."""

    def __init__(self, param_decls: Sequence[str], advice: str, **attributes: Any) -> None:
        super().__init__(param_decls, hidden=True, expose_value=False, is_eager=True, **attributes)
        self.advice = advice

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        if self.name in opts and not ctx.resilient_parsing:
            raise click.UsageError(self.advice.format(opts[self.name]), ctx)
        return super().handle_parse_result(ctx, {}, args)


def renamed_option(old: str, new: str, **attributes: Any) -> Callable[[Any], Any]:
    """Return a decorator for the old spelling of an option; `attributes` as of the new one: its type, or `is_flag`."""
    return click.option(old, _hidden_name(old), cls=RenamedOption, new=new, **attributes)


def replaced_option(old: str, advice: str) -> Callable[[Any], Any]:
    """Return a decorator for a spelling that is an error now; `{}` in the advice stands for the value given."""
    return click.option(old, _hidden_name(old), cls=ReplacedOption, advice=advice)


def _hidden_name(old: str) -> str:
    return f"old_{old.lstrip('-').replace('-', '_')}"


def _parameter_name(command: click.Command, option: str) -> str:
    return next(parameter.name for parameter in command.params if option in parameter.opts and parameter.name)
