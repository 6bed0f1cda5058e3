from __future__ import annotations

from typing import Any

import click

from prototxt_gen.cli import options


@click.command()
@options.as_json
def models(as_json: bool) -> None:
    """List the zoo: each net's unit, modules, size and cost."""
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
    options.echo_json(rows) if as_json else _table(rows)


def _table(rows: list[dict[str, Any]]) -> None:
    click.echo(f"{'name':24}{'unit':18}{'modules':>10}{'input':>7}{'layers':>8}{'parameters':>14}{'MACs':>18}")
    for row in rows:
        modules = "/".join(map(str, row["modules"])) or "-"
        click.echo(
            f"{row['name']:24}{row['unit']:18}{modules:>10}{row['input_size']:>7}{row['layers']:>8}"
            f"{row['parameters']:>14,}{row['macs']:>18,}"
        )
