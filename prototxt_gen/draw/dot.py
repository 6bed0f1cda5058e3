"""Export of a drawing for graphviz: DOT with pydot; SVG and PNG with the program `dot`."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from prototxt_gen.analysis import Row
from prototxt_gen.common.errors import PrototxtGenError, RuntimeMissingError
from prototxt_gen.common.optional_packages import missing
from prototxt_gen.common.printable import safe
from prototxt_gen.draw.drawing import FAMILIES, Box, Drawing, Edge, Scope, cost_text, family, name_in_scope

if TYPE_CHECKING:
    import pydot

MAX_BOXES = 3000
"""Largest number of boxes that `dot` lays out in about two minutes."""
TIMEOUT = 300
_FONT = "Helvetica,Arial,DejaVu Sans,sans-serif"
_GREY = "#5f6b7a"


def dot_text(drawing: Drawing, expanded: bool = False) -> str:
    """Return the drawing in DOT: a block for each top scope or, with `expanded`, every layer in its scopes."""
    return str(_graph(drawing, expanded).to_string())


def render_with_graphviz(drawing: Drawing, format_: str, expanded: bool = False) -> bytes:
    """Return the drawing as SVG or PNG, as `format_` ("svg", "png") says.

    Raises RuntimeMissingError if graphviz is not installed, PrototxtGenError if there are too many boxes.
    """
    boxes = len(drawing.boxes) if expanded else len(drawing.root.children)
    if boxes > MAX_BOXES:
        raise PrototxtGenError(
            f"the drawing has {boxes:,} boxes, and graphviz would take very long for more than {MAX_BOXES:,}; "
            "write .html or .dot"
        )
    try:
        done = subprocess.run(
            ["dot", f"-T{format_}"],
            input=dot_text(drawing, expanded).encode(),
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
        )
    except FileNotFoundError:
        raise RuntimeMissingError(
            "the program `dot` of graphviz is not installed: apt-get install graphviz, or write .dot or .html"
        ) from None
    except subprocess.TimeoutExpired:
        raise PrototxtGenError(f"`dot` has not finished after {TIMEOUT} s; write .html or .dot") from None
    except subprocess.CalledProcessError as error:
        raise PrototxtGenError(f"`dot` failed: {error.stderr.decode(errors='replace').strip()[:300]}") from None
    return done.stdout


def _graph(drawing: Drawing, expanded: bool) -> pydot.Dot:
    try:
        import pydot
    except ImportError:
        raise missing("pydot") from None
    graph = pydot.Dot("net", graph_type="digraph", rankdir="TB", nodesep="0.35", ranksep="0.38", bgcolor="white")
    total = f'<font point-size="11" color="{_GREY}">{_text(cost_text(list(drawing.root.rows())))}</font>'
    graph.set("label", _html(f'<font point-size="20"><b>{_text(drawing.title)}</b></font><br/>{total}<br/> '))
    graph.set("labelloc", "t")
    graph.set("fontname", _FONT)
    graph.set_node_defaults(shape="plain", fontname=_FONT, fontsize="11")
    graph.set_edge_defaults(color="#8391a3", arrowsize="0.6", fontname=_FONT, fontsize="9", fontcolor=_GREY)
    filler = _GraphFiller(expanded)
    filler.fill(graph, drawing.root)
    for (source, target), labels in _merged_edges(drawing.edges, filler.node).items():
        text = "\n".join(labels[:3]) + ("\n…" if len(labels) > 3 else "")
        graph.add_edge(pydot.Edge(source, target, label=f'" {text}"'))
    return graph


def _merged_edges(edges: Iterable[Edge], node: dict[int, str]) -> dict[tuple[str, str], list[str]]:
    """Return the distinct labels of all edges between each pair of different nodes."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for edge in edges:
        ends = (node[edge.source], node[edge.target])
        if ends[0] != ends[1]:
            found.setdefault(ends, {})[edge.label] = None
    return {ends: list(labels) for ends, labels in found.items()}


class _GraphFiller:
    """Adds boxes and scopes to a pydot graph; `node` is the name of the graph's node of each box, by id."""

    def __init__(self, expanded: bool) -> None:
        self.expanded = expanded
        self.node: dict[int, str] = {}
        self.clusters = 0

    def fill(self, graph: pydot.Graph, scope: Scope) -> None:
        import pydot

        for child in scope.children:
            if isinstance(child, Box):
                self.node[child.id] = f"n{child.id}"
                graph.add_node(
                    pydot.Node(
                        f"n{child.id}", **_NODE_FUNCTIONS[child.kind](child, name_in_scope(child.name, scope.path))
                    )
                )
            elif self.expanded:
                self._cluster(graph, child, scope)
            else:
                first = next(child.boxes()).id
                self.node.update((box.id, f"b{first}") for box in child.boxes())
                graph.add_node(pydot.Node(f"b{first}", label=_scope_label(child)))

    def _cluster(self, graph: pydot.Graph, scope: Scope, parent: Scope) -> None:
        import pydot

        self.clusters += 1
        inner = pydot.Cluster(
            f"c{self.clusters}", label=_html(f"<b>{_text(name_in_scope(scope.path, parent.path))}</b>"), fontname=_FONT
        )
        for name, value in (("fontsize", "11"), ("fontcolor", _GREY), ("color", "#c6ced8"), ("style", '"rounded"')):
            inner.set(name, value)
        self.fill(inner, scope)
        graph.add_subgraph(inner)  # type: ignore[arg-type]  # a Cluster is a subgraph to graphviz, not to pydot


def _html(text: str) -> str:
    return f"<{text}>"


def _text(text: str, most: int = 80) -> str:
    """Return a text for an HTML-like label, escaped and shortened to `most` characters."""
    printable = safe(text)
    return escape(printable if len(printable) <= most else f"{printable[: most - 1]}…") or " "


def _table(lines: Iterable[str], colour: str = "#b9c3cf", background: str = "white") -> str:
    rows = "".join(f"<tr>{line}</tr>" for line in lines)
    style = f'style="rounded" border="1" cellborder="0" cellspacing="0" cellpadding="4" color="{colour}"'
    return _html(f'<table {style} bgcolor="{background}">{rows}</table>')


def _stack_node(box: Box, name: str) -> dict[str, Any]:
    """Return the attributes of the node of a stack of layers: a row for each layer, in the colour of its family."""
    title = f'<td align="left"><font point-size="10"><b>{_text(name)}</b></font></td>'
    return {"label": _table([title, *(_layer_line(row) for row in box.rows)])}


def _layer_line(row: Row) -> str:
    detail = f' <font point-size="9" color="{_GREY}">{_text(cost_text([row]))}</font>' if row.parameters else ""
    return f'<td align="left" bgcolor="{FAMILIES[family(row.layer)]}">{_text(row.layer.type)}{detail}</td>'


def _blob_node(box: Box, name: str) -> dict[str, Any]:
    colour = "#d64545" if box.kind == "missing" else "#8391a3"
    return {
        "label": _html(f"<b>{_text(name)}</b>"),
        "shape": "box",
        "style": '"rounded,filled,dashed"' if box.kind == "missing" else '"rounded,filled"',
        "fillcolor": '"white"' if box.kind == "missing" else f'"{FAMILIES["data"]}"',
        "color": f'"{colour}"',
        "margin": '"0.12,0.05"',
        "height": "0.3",
    }


_NODE_FUNCTIONS = {"layers": _stack_node, "input": _blob_node, "output": _blob_node, "missing": _blob_node}


def _scope_label(scope: Scope) -> str:
    """Return the label of a scope: its name, its layer types with their counts, parameters and MACs."""
    rows = list(scope.rows())
    title = f'<td align="left"><font point-size="13"><b>{_text(scope.path)}</b></font></td>'
    chips = "".join(f"<tr>{''.join(line)}</tr>" for line in _chip_lines(list(_type_chips(rows))))
    costs = f'<td align="left"><font point-size="9" color="{_GREY}">{_text(cost_text(rows))}</font></td>'
    table = f'<td align="left"><table border="0" cellborder="0" cellspacing="2" cellpadding="3">{chips}</table></td>'
    return _table([title, table, costs], "#8391a3", "#fbfcfd")


def _type_chips(rows: Iterable[Row]) -> Iterator[str]:
    first = {row.layer.type: row.layer for row in rows}
    for type_, count in Counter(row.layer.type for row in rows).most_common(12):
        text = f"{count} × {_text(type_, 30)}" if count > 1 else _text(type_, 30)
        yield f'<td bgcolor="{FAMILIES[family(first[type_])]}"><font point-size="10">{text}</font></td>'


def _chip_lines(chips: list[str], each: int = 4) -> Iterator[list[str]]:
    for start in range(0, len(chips), each):
        yield chips[start : start + each]
