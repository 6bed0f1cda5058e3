"""`prototxt-gen view`: a net in Netron."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from prototxt_gen.cli import options
from prototxt_gen.common.optional_packages import missing


@click.command()
@options.net_argument
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Where to serve; any free port unless told.")
@click.option("--no-browser", is_flag=True, help="Serve only, and print the address.")
def view(net: Path, port: int, no_browser: bool) -> None:
    """Open NET in Netron, in the browser, until Ctrl-C."""
    options.read_any(net)  # says what is wrong with a file where Netron would show an empty page
    try:
        netron = import_module("netron")
    except ImportError:
        raise missing("netron") from None
    netron.start(str(net), address=("localhost", port), browse=not no_browser)  # it prints the address itself
    netron.wait()
