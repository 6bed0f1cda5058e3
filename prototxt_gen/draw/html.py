"""A drawing as one HTML file: blocks that open on a click, laid out by the script in it; no network, no library."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from prototxt_gen.analysis import Row
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.printable import safe, safe_lines
from prototxt_gen.draw.drawing import FAMILIES, Box, Drawing, Scope, family, numbers, within
from prototxt_gen.ir import Layer, show
from prototxt_gen.net.render import render
from prototxt_gen.text import Field, format_fields

MOST_LAYERS = 20_000
"""More than these no browser shows at a bearable speed."""


def html_text(drawing: Drawing, expanded: bool = False) -> str:
    """Return the page; with `expanded` all blocks are open at first."""
    rows = list(drawing.root.rows())
    if len(rows) > MOST_LAYERS:
        raise PrototxtGenError(f"{len(rows):,} layers; a browser bears {MOST_LAYERS:,}; write .dot")
    data = {
        "title": safe(drawing.title),
        "subtitle": numbers(rows),
        "families": FAMILIES,
        "expanded": expanded,
        "root": _scope(drawing.root, ""),
        "edges": [[edge.source, edge.target, edge.label] for edge in drawing.edges],
    }
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return render("draw.html.j2", title=safe(drawing.title), data=text)


def _scope(scope: Scope, parent: str) -> dict[str, Any]:
    rows = list(scope.rows())
    first = {row.layer.type: row.layer for row in rows}
    counts = Counter(row.layer.type for row in rows).most_common()
    return {
        "path": safe(scope.path),
        "name": safe(within(scope.path, parent)),
        "chips": [[safe(type_), count, family(first[type_])] for type_, count in counts],
        "numbers": numbers(rows),
        "children": [_box(c, scope.path) if isinstance(c, Box) else _scope(c, scope.path) for c in scope.children],
    }


def _box(box: Box, parent: str) -> dict[str, Any]:
    return {
        "id": box.id,
        "kind": box.kind,
        "name": safe(within(box.name, parent)),
        "layers": [_layer(row) for row in box.rows],
        "shape": show(box.shape),
    }


def _layer(row: Row) -> dict[str, Any]:
    layer = row.layer
    return {
        "name": safe(layer.name),
        "type": safe(layer.type),
        "family": family(layer),
        "numbers": numbers([row]) if row.known else "",
        "tops": ", ".join(f"{safe(top.blob)} {show(shape)}" for top, shape in zip(layer.tops, row.tops, strict=True)),
        "error": safe_lines(str(row.error)) if row.error is not None else "",
        "text": _prototxt(layer),
    }


def _prototxt(layer: Layer) -> str:
    head = [Field("name", layer.name, 0), Field("type", layer.type, 0)]
    blobs = [Field("bottom", v.blob, 0) for v in layer.bottoms] + [Field("top", v.blob, 0) for v in layer.tops]
    return format_fields([Field("layer", (*head, *blobs, *layer.params.to_text()), 0)])
