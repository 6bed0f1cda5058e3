"""Problems as lines of text for the user, equal ones together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from prototxt_gen.checks.problem import NOTE, Problem
from prototxt_gen.common.printable import safe


def problem_lines(problems: Iterable[Problem], path: Path) -> Iterator[str]:
    """Yield a line for each different problem, such as `error: line 3: …`, with the number of equal ones.

    `path` is the file that was checked; only problems of other files begin with the name of their file.
    """
    groups: dict[tuple[str, ...], list[Problem]] = {}
    for problem in problems:
        phase = "" if problem.severity == NOTE else problem.phase
        key = (problem.severity, problem.code, problem.type, problem.message, phase, problem.source)
        groups.setdefault(key, []).append(problem)
    for equal in groups.values():
        others = f" (and {len(equal) - 1:,} more like it)" if len(equal) > 1 else ""
        yield f"{equal[0].severity}: {_file_of(equal[0], path)}{safe(str(equal[0]))}{others}"


def _file_of(problem: Problem, path: Path) -> str:
    """Return the file that a problem is in, if it is not the one that was checked."""
    return f"{safe(problem.source)}: " if problem.source not in ("", str(path)) else ""
