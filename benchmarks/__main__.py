"""Run all benchmarks, or those named on the command line; exit 1 where one misses what is wanted."""

from __future__ import annotations

import sys
from importlib import import_module

from benchmarks.table import machine, table, write_down

NAMES = ("startup", "convert", "train")


def main(names: tuple[str, ...]) -> int:
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
