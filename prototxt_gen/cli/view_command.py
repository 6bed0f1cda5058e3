"""`prototxt-gen view`: open a net in Netron."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.read_net import read_net_or_solver
from prototxt_gen.common.optional_packages import missing


@click.command(
    cls=Command,
    examples=["prototxt-gen view net.prototxt", "prototxt-gen view net.prototxt --port 8080 --no-browser"],
)
@options.net_argument
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="any free port",
              help="Port of the local web server.")  # fmt: skip
@click.option("--no-browser", is_flag=True, help="Do not open a browser; only print the address.")
def view(net: Path, port: int, no_browser: bool) -> None:
    """Open NET in Netron, in the browser. Ctrl-C stops it."""
    read_net_or_solver(net)  # a damaged file is an error here; Netron would show an empty page
    try:
        netron = import_module("netron")
    except ImportError:
        raise missing("netron") from None
    netron.start(str(net), address=("localhost", port), browse=not no_browser)  # prints the address
    netron.wait()
