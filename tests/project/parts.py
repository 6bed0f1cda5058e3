"""`make parts`: print the parts of the code and the imports between them; write the tables of CONTRIBUTING.md.

A part is a folder or a module directly in `prototxt_gen/`, or one in `converters/`. The levels are those of
`.importlinter`; the imports are those that grimp finds, inside functions and under TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

from prototxt_gen.layers import all_layer_types

ROOT = Path(__file__).parents[2]
PACKAGES = ("prototxt_gen", "converters")
ENTRY_POINTS = ("prototxt_gen", "converters", "prototxt_gen.__main__")
"""They name everything lazily, or start the command line, and belong to no level."""
MARK = "<!-- {}: {} -->\n"
"""Begin and end of what is written into CONTRIBUTING.md."""


def part_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def levels() -> list[list[str]]:
    """Return the parts of each level, the highest first; `converters` is replaced by its own levels."""
    parser = ConfigParser()
    parser.read(ROOT / ".importlinter", encoding="utf-8")
    rows = {name: parser[f"importlinter:contract:{name}"]["layers"].split("\n") for name in ("levels", "converters")}
    split = {name: [row.split(" | ") for row in text if row] for name, text in rows.items()}
    found = []
    for row in split["levels"]:
        found += split["converters"] if row == ["converters"] else [row]
    return found


@dataclass(frozen=True)
class Parts:
    """The import graph, seen as imports between parts."""

    graph: grimp.ImportGraph

    @cached_property
    def modules(self) -> list[str]:
        return sorted(self.graph.modules - set(ENTRY_POINTS))

    @cached_property
    def names(self) -> list[str]:
        return sorted({part_of(module) for module in self.modules})

    @cached_property
    def loose(self) -> list[str]:
        """Modules that lie in no folder."""
        return [name for name in self.names if name in self.graph.modules and not self.graph.find_children(name)]

    @cached_property
    def imports(self) -> list[tuple[str, str]]:
        """(importing, imported) modules of different parts."""
        pairs = ((one, other) for one in self.modules for other in self.graph.find_modules_directly_imported_by(one))
        return [pair for pair in pairs if part_of(pair[0]) != part_of(pair[1]) and pair[1] not in ENTRY_POINTS]

    @cached_property
    def upward(self) -> list[tuple[str, str]]:
        """Imports of a part that is not on a lower level."""
        level = {part: index for index, row in enumerate(levels()) for part in row}
        return [(a, b) for a, b in self.imports if level.get(part_of(b), 0) <= level.get(part_of(a), -1)]

    @cached_property
    def by_part(self) -> dict[str, set[str]]:
        """The parts that each part imports."""
        return {part: {part_of(b) for a, b in self.imports if part_of(a) == part} for part in self.names}

    @cached_property
    def circle(self) -> list[str]:
        """A circle of imports between files, or an empty list."""
        try:
            TopologicalSorter({m: self.graph.find_modules_directly_imported_by(m) for m in self.modules}).prepare()
        except CycleError as error:
            return list(error.args[1])
        return []

    def nearest(self, part: str) -> set[str]:
        """Return the parts that `part` imports, without those that one of them imports, directly or not."""
        direct = self.by_part[part]
        return direct - {name for other in direct for name in self.below[other]}

    @cached_property
    def below(self) -> dict[str, set[str]]:
        """All parts that each part imports, directly or through others."""
        found: dict[str, set[str]] = {}
        for part in TopologicalSorter(self.by_part).static_order():
            found[part] = self.by_part[part].union(*(found[name] for name in self.by_part[part]))
        return found


def purpose(part: str) -> str:
    """Return the first line of the docstring of a part."""
    path = ROOT / part.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def diagram(parts: Parts) -> Iterator[str]:
    """Yield the lines of the table and the diagram in CONTRIBUTING.md."""
    yield "| level | folder | what is in it |\n|---:|---|---|\n"
    for index, row in enumerate(reversed(levels())):
        for part in row:
            yield f"| {index} | `{part.replace('.', '/')}/` | {purpose(part)} |\n"
    yield "\nEach arrow is an import; one that follows from others is left out.\n\n```mermaid\nflowchart TD\n"
    for row in levels():
        for part in row:
            yield from (f"    {part} --> {other}\n" for other in sorted(parts.nearest(part)))
    yield "```\n"


def layer_types() -> Iterator[str]:
    """Yield the lines of the table that finds the file of every layer type."""
    by_family: dict[str, list[str]] = {}
    for name, layer_type in sorted(all_layer_types().items(), key=lambda item: item[0].lower()):
        *_, family, file = type(layer_type).__module__.split(".")
        shown = name if file.replace("_", "") == name.lower() else f"{name} (`{file}.py`)"
        by_family.setdefault(family, []).append(shown)
    yield "| folder | layer types |\n|---|---|\n"
    for family, names in sorted(by_family.items()):
        yield f"| `layers/{family}/` | {', '.join(names)} |\n"


def contributing(parts: Parts) -> str:
    """Return CONTRIBUTING.md with its generated parts as they are now."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name, lines in (("make parts", diagram(parts)), ("layer types", layer_types())):
        begin, end = MARK.format("begin", name), MARK.format("end", name)
        before, _, rest = text.partition(begin)
        text = before + begin + "".join(lines) + end + rest.partition(end)[2]
    return text


def read_parts() -> Parts:
    return Parts(grimp.build_graph(*PACKAGES, cache_dir=None))


def main() -> None:
    parts = read_parts()
    print(f"{len(parts.names)} parts on {len(levels())} levels, {len(parts.modules)} files")
    pairs = {(part_of(one), part_of(other)) for one, other in parts.imports}
    print(f"{len(pairs)} pairs of parts where one imports the other")
    print(f"{len(parts.imports)} imports between parts, {len(parts.upward)} of them upward")
    print("circle of imports:", " → ".join(parts.circle) or "none")
    print("modules in no folder:", ", ".join(parts.loose) or "none")
    for row in levels():
        for part in row:
            print(f"  {part}: {', '.join(sorted(parts.by_part[part])) or '-'}")
    (ROOT / "CONTRIBUTING.md").write_text(contributing(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
