"""Tables on stdout: rich on a terminal; plain columns in a pipe, where nothing is wrapped or cut off."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

import click

MAX_RICH_ROWS = 2000
"""Longer tables are printed as plain columns, since rich takes milliseconds for each row."""


def echo_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> None:
    """Print a table; `right` names the columns that are aligned to the right."""
    if sys.stdout.isatty() and len(rows) <= MAX_RICH_ROWS:
        _echo_rich(columns, rows, right)
    else:
        _echo_plain(columns, rows, right)


def echo_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns without a heading."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"{name.ljust(width)}  {value}")


def _echo_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def _echo_plain(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = []
    for row in (columns, *rows):
        cells = zip(row, widths, columns, strict=True)
        padded = [cell.rjust(width) if column in right else cell.ljust(width) for cell, width, column in cells]
        lines.append("  ".join(padded).rstrip())
    click.echo("\n".join(lines))
