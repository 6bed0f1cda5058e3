"""`prototxt-gen models`: the models that `emit` can write."""

from __future__ import annotations

from typing import Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.table import echo_table

COLUMNS = ("name", "unit", "modules", "input", "layers", "parameters", "MACs")


@click.command(cls=Command, examples=["prototxt-gen models", "prototxt-gen models --json"])
@options.as_json
def models(as_json: bool) -> None:
    """List the models that `emit` can write, with their size and cost."""
    rows = _rows()
    echo_json(rows) if as_json else _echo(rows)


def _rows() -> list[dict[str, Any]]:
    from prototxt_gen.analysis import analyse
    from prototxt_gen.models import ZOO

    rows: list[dict[str, Any]] = []
    for name, config in ZOO.items():
        analysis = analyse(config.build())
        rows.append(
            {
                "name": name,
                "unit": config.unit,
                "modules": list(config.modules),
                "input_size": config.input_size,
                "classes": config.classes,
                "layers": len(analysis.rows),
                "parameters": analysis.parameters,
                "macs": analysis.macs,
            }
        )
    return rows


def _echo(rows: list[dict[str, Any]]) -> None:
    cells = [
        (
            row["name"],
            row["unit"],
            "/".join(map(str, row["modules"])) or "-",
            str(row["input_size"]),
            str(row["layers"]),
            f"{row['parameters']:,}",
            f"{row['macs']:,}",
        )
        for row in rows
    ]
    echo_table(COLUMNS, cells, right=COLUMNS[2:])
