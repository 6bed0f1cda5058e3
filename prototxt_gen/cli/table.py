"""Tables: Rich on a terminal, plain columns in a pipe, where nothing is wrapped or cut off."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

import click

RICH_ROWS = 2000
"""Rich takes milliseconds a row; longer tables are plain."""


def echo_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> None:
    """Print a table; `right` names the columns that are aligned to the right."""
    if sys.stdout.isatty() and len(rows) <= RICH_ROWS:
        _rich(columns, rows, right)
    else:
        _plain(columns, rows, right)


def _rich(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
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


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = []
    for row in (columns, *rows):
        cells = zip(row, widths, columns, strict=True)
        padded = [cell.rjust(width) if column in right else cell.ljust(width) for cell, width, column in cells]
        lines.append("  ".join(padded).rstrip())
    click.echo("\n".join(lines))
