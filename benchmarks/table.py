"""What benchmarks give, and where it is written down."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

README = Path(__file__).with_name("README.md")


class Result(NamedTuple):
    """One line: what was measured, how it came out, what is wanted, and whether it is reached."""

    what: str
    measured: str
    wanted: str = ""
    reached: bool = True


def table(results: Iterable[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| what | measured | wanted | |", "|---|---:|---:|---|"]
    for what, measured, wanted, reached in results:
        verdict = "" if not wanted else "reached" if reached else "**missed**"
        lines.append(f"| {what} | {measured} | {wanted} | {verdict} |")
    return "\n".join(lines)


def machine() -> str:
    """Return the day and the machine in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    python = f"Python {platform.python_version()}, click {version('click')}"
    return f"{date.today().isoformat()}, {platform.system()} on {platform.machine()}, {cores} CPU cores, {python}"


def write_down(name: str, text: str, readme: Path = README) -> None:
    """Put the text between the marks `<!-- name -->` and `<!-- /name -->` of the README."""
    old = readme.read_text(encoding="utf-8")
    before, start, rest = old.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not (start and end):
        raise ValueError(f"{readme.name} has no marks for {name}")
    readme.write_text(f"{before}{start}{text}\n{end}{after}", encoding="utf-8")
