"""Contents of a drawing of a net: stacks of layers that follow each other, grouped in scopes, and edges between them.

The modules `dot` and `html` draw it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.ir import Layer, Shape, Value, show
from prototxt_gen.net.phase_rules import is_loss_or_metric, is_source_layer

MAX_SCOPES = 12
"""Maximum depth of nested scopes; deeper ones are drawn inside the last."""

FAMILIES = {
    "data": "#dfe3e8",
    "learned": "#a9cdf5",
    "norm": "#b5e3c1",
    "activation": "#ffd9a6",
    "resample": "#d6c4f2",
    "joint": "#fbeaa0",
    "loss": "#f7b8b4",
    "other": "#f1f1f1",
    "unknown": "#ffffff",
}
"""Families of layer types, with their colours."""
_TYPES_OF_FAMILY = {
    "learned": "Convolution Deconvolution InnerProduct Embed Filter LSTM RNN Lstm Recurrent ConvolutionDepthwise "
    "DepthwiseConvolution Parameter",
    "norm": "BN BatchNorm Scale Bias LRN MVN Normalize LayerNorm ChannelScale Axpy",
    "activation": "ReLU ReLU6 PReLU ELU Sigmoid TanH Softmax AbsVal BNLL Clip Exp Log Power Threshold Swish Mish "
    "HardSigmoid HardSwish Dropout",
    "resample": "Pooling Interp Upsample Resize ResizeNearestNeighbor Crop CropCenter Pad SPP ROIPooling Tile "
    "PixelShuffle Im2col",
    "joint": "Eltwise Concat Slice Split Flatten Reshape Permute Reduction ArgMax BatchReindex ShuffleChannel Flip "
    "Silence Axpy",
}
_FAMILY = {type_: family for family, types in _TYPES_OF_FAMILY.items() for type_ in types.split()}


def family(layer: Layer) -> str:
    """Return the family of a layer's type, one of FAMILIES."""
    if layer.type in _FAMILY:
        return _FAMILY[layer.type]
    if is_source_layer(layer):
        return "data"
    if is_loss_or_metric(layer):
        return "loss"
    return "other" if layers.find_layer_type(layer.type) is not None else "unknown"


@dataclass(frozen=True)
class Box:
    """One box of a drawing. `kind` is "layers" (a stack of layers, `rows`), "input", "output" or "missing" (a blob)."""

    id: int
    kind: str
    name: str
    rows: tuple[Row, ...] = ()
    shape: Shape | None = None


@dataclass
class Scope:
    """Boxes and scopes whose names begin with the same `path`, in the order of the net."""

    path: str
    children: list[Box | Scope] = field(default_factory=list)

    def boxes(self) -> Iterator[Box]:
        """Yield all boxes in this scope and its inner scopes."""
        for child in self.children:
            if isinstance(child, Box):
                yield child
            else:
                yield from child.boxes()

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all layers in this scope and its inner scopes."""
        for box in self.boxes():
            yield from box.rows


@dataclass(frozen=True)
class Edge:
    """A blob that one box writes and another reads, both given by id; the label is its shape."""

    source: int
    target: int
    label: str


@dataclass(frozen=True)
class Drawing:
    """The contents of a drawing. `root` contains all boxes."""

    title: str
    root: Scope
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


def make_drawing(analysis: Analysis) -> Drawing:
    """Return the drawing of an analysed net."""
    made = _DrawingBuilder(analysis)
    boxes = made.boxes()
    edges = tuple(made.edges(boxes))
    root = _without_single_child_scopes(_scope_tree([box for box in boxes if box.kind == "layers"]))
    _move_boxes_into_scopes(root, edges)
    root.children = [
        *(box for box in boxes if box.kind in ("input", "missing")),
        *root.children,
        *(box for box in boxes if box.kind == "output"),
    ]
    return Drawing(analysis.net.name, root, tuple(boxes), edges)


class _DrawingBuilder:
    """Makes the boxes and edges of one net."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis, self.net = analysis, analysis.net
        self.uses = Counter(value for layer in self.net.layers for value in layer.bottoms)

    def boxes(self) -> list[Box]:
        """Return the boxes of inputs, stacks of layers, outputs, and bottoms that no layer writes."""
        inputs = [("input", value.blob, (), self.analysis.shapes.get(value)) for value in self.net.inputs]
        stacks = [("layers", rows[0].layer.name, tuple(rows), None) for rows in self._stacks()]
        outputs = [("output", value.blob, (), self.analysis.shapes.get(value)) for value in self._outputs()]
        missing = [("missing", value.blob, (), None) for value in self.uses if value.version < 0]
        return [Box(id_, *one) for id_, one in enumerate([*inputs, *missing, *stacks, *outputs])]

    def _outputs(self) -> list[Value]:
        inputs = set(self.net.inputs)
        return [value for value in self.net.outputs if value not in inputs]

    def _stacks(self) -> list[list[Row]]:
        """Return stacks of layers: a layer joins the stack of its bottom if in place or by its name (`conv1/bn`)."""
        stacks: list[list[Row]] = []
        by_value: dict[Value, list[Row]] = {}
        for row in self.analysis.rows:
            layer = row.layer
            below = by_value.get(layer.bottoms[0]) if len(layer.bottoms) == 1 else None
            if below is not None and self.uses[layer.bottoms[0]] == 1 and _belongs_to_stack(layer, below):
                below.append(row)
            else:
                below = [row]
                stacks.append(below)
            by_value.update(dict.fromkeys(layer.tops, below))
        return stacks

    def edges(self, boxes: list[Box]) -> Iterator[Edge]:
        """Yield an edge for every bottom that comes from another stack, and for every output."""
        makers = {value: box.id for value, box in zip(self.net.inputs, boxes, strict=False)}
        missing = {box.name: box.id for box in boxes if box.kind == "missing"}
        outputs = {value: box.id for value, box in zip(self._outputs(), _boxes_of_kind(boxes, "output"), strict=True)}
        for box in _boxes_of_kind(boxes, "layers"):
            makers.update((top, box.id) for row in box.rows for top in row.layer.tops)
        for box in _boxes_of_kind(boxes, "layers"):
            for value in box.rows[0].layer.bottoms:
                source = makers.get(value, missing.get(value.blob, box.id))
                yield Edge(source, box.id, show(self.analysis.shapes.get(value)))
        for value, id_ in outputs.items():
            yield Edge(makers[value], id_, show(self.analysis.shapes.get(value)))


def _boxes_of_kind(boxes: list[Box], kind: str) -> list[Box]:
    return [box for box in boxes if box.kind == kind]


def _belongs_to_stack(layer: Layer, below: list[Row]) -> bool:
    """Return whether a layer with one bottom belongs to the stack that writes this bottom."""
    last, first = below[-1].layer, below[0].layer
    if layer.bottoms[0] not in last.tops or len(last.tops) > 1 or is_source_layer(last):
        return False
    in_place = len(layer.tops) == 1 and layer.tops[0].blob == layer.bottoms[0].blob
    return in_place or layer.name.startswith(f"{first.name}/")


def _scope_tree(boxes: list[Box]) -> Scope:
    """Return the boxes in scopes by their slash-separated names; a box with the name of a scope is in that scope."""
    scopes = {"": Scope("")}
    prefixes = {prefix for box in boxes for prefix in _scope_paths(box.name)}
    for box in boxes:
        path = [*_scope_paths(box.name), *([box.name] if box.name in prefixes else [])][:MAX_SCOPES]
        _get_scope(scopes, path).children.append(box)
    return scopes[""]


def _scope_paths(name: str) -> list[str]:
    """Return the paths of the scopes of a name: `a` and `a/b` for `a/b/c`."""
    parts = name.split("/", MAX_SCOPES)[:-1]
    return ["/".join(parts[: index + 1]) for index in range(len(parts))]


def _get_scope(scopes: dict[str, Scope], path: list[str]) -> Scope:
    """Return the scope of a path, after adding it to `scopes` if necessary."""
    parent = scopes[""]
    for name in path:
        if name not in scopes:
            scopes[name] = Scope(name)
            parent.children.append(scopes[name])
        parent = scopes[name]
    return parent


def _without_single_child_scopes(scope: Scope, root: bool = True) -> Scope:
    """Replace scopes that have only one child by this child."""
    children: list[Box | Scope] = []
    for child in scope.children:
        inner = _without_single_child_scopes(child, False) if isinstance(child, Scope) else child
        lone = isinstance(inner, Scope) and len(inner.children) == 1
        children.append(inner.children[0] if isinstance(inner, Scope) and lone else inner)
    scope.children = children
    only = children[0] if root and len(children) == 1 else None
    return only if isinstance(only, Scope) else scope


def _move_boxes_into_scopes(root: Scope, edges: tuple[Edge, ...]) -> None:
    """Move top-level boxes into the scope that contains all their neighbours, as the edges would form a loop."""
    home = {box.id: child for child in root.children if isinstance(child, Scope) for box in child.boxes()}
    neighbours: dict[int, set[int]] = {}
    for edge in edges:
        for end, other in ((edge.source, edge.target), (edge.target, edge.source)):
            neighbours.setdefault(end, set()).add(other)
    kept: list[Box | Scope] = []
    for child in root.children:
        near = neighbours.get(child.id, set()) if isinstance(child, Box) else set()
        homes = {id(home.get(other)) for other in near}
        scope = home.get(next(iter(near))) if len(homes) == 1 and len(near) > 1 else None
        (scope.children if scope is not None else kept).append(child)
    root.children = kept


def name_in_scope(name: str, scope: str) -> str:
    """Return a name relative to a scope: `b/c` for `a/b/c` in `a`, and `b` for `a/b` in `a/b` itself."""
    if name == scope:
        return name.rsplit("/", 1)[-1]
    return name.removeprefix(f"{scope}/") if scope else name


def cost_text(rows: list[Row]) -> str:
    """Return a short text with the numbers of layers, parameters and MACs."""
    parameters, macs = sum(row.parameters for row in rows), sum(row.macs or 0 for row in rows)
    unknown = "" if all(row.known for row in rows) else " at least"
    parts = [f"{len(rows)} layers"] if len(rows) > 1 else []
    parts += [f"{short_number(parameters)} parameters"] if parameters else []
    parts += [f"{short_number(macs)} MACs"] if macs else []
    return " · ".join(parts) + unknown


def short_number(count: int) -> str:
    """Return a number with three digits and a unit: 25.6 M for 25,600,000."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
