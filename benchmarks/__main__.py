"""Run all benchmarks, or those named on the command line; exit 1 where one misses what is wanted.

`models [FOLDER]` and `peers` run only when named: the one needs models, the other installs what it compares with.
"""

from __future__ import annotations

import sys
from importlib import import_module

from benchmarks.table import machine, table, write_down

NAMES = ("startup", "convert", "train")
ALONE = ("models", "peers")
"""Those that run alone, on arguments of their own."""


def main(names: tuple[str, ...]) -> int:
    if names and names[0] in ALONE:
        wrong: int = import_module(f"benchmarks.{names[0]}").main(names[1:])
        return 1 if wrong else 0
    missed = 0
    for name in names or NAMES:
        benchmark = import_module(f"benchmarks.{name}")
        results = list(benchmark.results())
        missed += sum(not result.reached for result in results)
        text = f"{machine()}.\n\n{table(results)}"
        write_down(name, text)
        print(f"{benchmark.TITLE}: {text}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:])))
