"""All prototxts of the collection (if present) are read, checked, summarised and written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from prototxt_gen.analysis import Analysis, analyse
from prototxt_gen.analysis.unknown_shapes import root_causes
from prototxt_gen.cli import cli
from prototxt_gen.ir import Net
from prototxt_gen.net.phase_rules import intended_phases
from prototxt_gen.net.prototxt_reader import net_from_tree, parse_net
from prototxt_gen.net.render import net_text, solver_text
from prototxt_gen.net.solver import is_solver, solver_from_tree
from prototxt_gen.text import parse

CORPUS = Path(__file__).parents[3] / "shared" / "models"
FILES = sorted(CORPUS.rglob("*.prototxt")) if CORPUS.is_dir() else []
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILES, reason="there is no collection of prototxts beside the checkout"),
]
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORPUS)))


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


@each_file
def test_a_net_that_is_written_and_read_again_is_the_same(path: Path) -> None:
    tree = parse(path.read_bytes())
    if is_solver(tree):
        solver = solver_from_tree(tree)
        text = solver_text(solver.params)
        assert solver_from_tree(parse(text)).params == solver.params
        return
    net = net_from_tree(tree)
    text = net_text(net)
    again = parse_net(text)
    assert again == net
    assert net_text(again) == text


@each_file
def test_checked_and_summarised(path: Path) -> None:
    found = json.loads(run("check", str(path), "--json").stdout)
    codes = {problem["code"] for problem in found}
    assert not codes & {"not-readable", "not-a-net"}
    summary = run("summary", str(path), "--json")
    assert summary.exit_code == 0, summary.output
    assert json.loads(summary.stdout)
    assert run("summary", str(path)).exit_code == 0


def nets() -> Iterator[tuple[Path, Net]]:
    for path in FILES:
        tree = parse(path.read_bytes())
        if not is_solver(tree):
            yield path, net_from_tree(tree)


def analyses() -> Iterator[tuple[Path, Analysis]]:
    for path, net in nets():
        for phase in intended_phases(net):
            yield path, analyse(net.at(phase))


def test_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """What is known, and for what reasons the rest is not: printed for the README."""
    counts, causes, held = Counter({"files": len(FILES)}), Counter[str](), Counter[str]()
    for path, analysis in analyses():
        counts["nets of one phase"] += 1
        counts["complete"] += analysis.complete
        counts["layers"] += len(analysis.rows)
        counts["layers known"] += sum(row.known for row in analysis.rows)
        for cause in root_causes(analysis):
            causes[cause.reason] += len(cause.rows) + cause.waiting
            held[f"{path.relative_to(CORPUS)}: {cause.reason}"] += len(cause.rows) + cause.waiting
    counts["nets"] = len(list(nets()))
    with capsys.disabled():
        print(f"\n{dict(counts)}")
        for title, table in (("causes", causes), ("files", held)):
            print(f"{title}, by layers that are not known:")
            for text, count in table.most_common(30):
                print(f"{count:7}  {text[:180]}")
    assert sum(causes.values()) == counts["layers"] - counts["layers known"]
    assert counts["layers known"] > counts["layers"] / 2
