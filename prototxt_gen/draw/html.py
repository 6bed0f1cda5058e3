"""Export of a drawing as one self-contained HTML page, in which scopes open on a click; its script does the layout."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from prototxt_gen.analysis import Row
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.common.printable import safe, safe_lines
from prototxt_gen.draw.drawing import FAMILIES, Box, Drawing, Scope, cost_text, family, name_in_scope
from prototxt_gen.ir import Layer, show
from prototxt_gen.net.render import render
from prototxt_gen.text import Field, format_fields

MAX_LAYERS = 20_000
"""Largest number of layers that a browser displays fast enough."""


def html_text(drawing: Drawing, expanded: bool = False) -> str:
    """Return the HTML page; with `expanded` all scopes are open. Raises PrototxtGenError beyond MAX_LAYERS layers."""
    rows = list(drawing.root.rows())
    if len(rows) > MAX_LAYERS:
        raise PrototxtGenError(f"{len(rows):,} layers are too many for a browser (at most {MAX_LAYERS:,}); write .dot")
    data = {
        "title": safe(drawing.title),
        "subtitle": cost_text(rows),
        "families": FAMILIES,
        "expanded": expanded,
        "root": _scope_data(drawing.root, ""),
        "edges": [[edge.source, edge.target, edge.label] for edge in drawing.edges],
    }
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return render("draw.html.j2", title=safe(drawing.title), data=text)


def _scope_data(scope: Scope, parent: str) -> dict[str, Any]:
    rows = list(scope.rows())
    first = {row.layer.type: row.layer for row in rows}
    counts = Counter(row.layer.type for row in rows).most_common()
    return {
        "path": safe(scope.path),
        "name": safe(name_in_scope(scope.path, parent)),
        "chips": [[safe(type_), count, family(first[type_])] for type_, count in counts],
        "numbers": cost_text(rows),
        "children": [
            _box_data(c, scope.path) if isinstance(c, Box) else _scope_data(c, scope.path) for c in scope.children
        ],
    }


def _box_data(box: Box, parent: str) -> dict[str, Any]:
    return {
        "id": box.id,
        "kind": box.kind,
        "name": safe(name_in_scope(box.name, parent)),
        "layers": [_layer_data(row) for row in box.rows],
        "shape": show(box.shape),
    }


def _layer_data(row: Row) -> dict[str, Any]:
    layer = row.layer
    return {
        "name": safe(layer.name),
        "type": safe(layer.type),
        "family": family(layer),
        "numbers": cost_text([row]) if row.known else "",
        "tops": ", ".join(f"{safe(top.blob)} {show(shape)}" for top, shape in zip(layer.tops, row.tops, strict=True)),
        "error": safe_lines(str(row.error)) if row.error is not None else "",
        "text": _prototxt_of_layer(layer),
    }


def _prototxt_of_layer(layer: Layer) -> str:
    head = [Field("name", layer.name, 0), Field("type", layer.type, 0)]
    blobs = [Field("bottom", v.blob, 0) for v in layer.bottoms] + [Field("top", v.blob, 0) for v in layer.tops]
    return format_fields([Field("layer", (*head, *blobs, *layer.params.to_text()), 0)])
