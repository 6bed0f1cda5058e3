"""What a drawing shows: layers stacked where one only follows another, stacks in scopes, and the blobs between them.

Nothing here knows how it is drawn; `dot` and `html` do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from prototxt_gen import layers
from prototxt_gen.analysis import Analysis, Row
from prototxt_gen.ir import Layer, Shape, Value, show
from prototxt_gen.net.phase_rules import is_ending, is_source

MAX_SCOPES = 12
"""Scopes inside each other; what is deeper is drawn in the last."""

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
_MEMBERS = {
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
_FAMILY = {type_: family for family, types in _MEMBERS.items() for type_ in types.split()}


def family(layer: Layer) -> str:
    """Return the family of a layer's type."""
    if layer.type in _FAMILY:
        return _FAMILY[layer.type]
    if is_source(layer):
        return "data"
    if is_ending(layer):
        return "loss"
    return "other" if layers.find_layer_type(layer.type) is not None else "unknown"


@dataclass(frozen=True)
class Box:
    """One thing drawn: a stack of layers, or an input, an output or a missing blob of the net, as `kind` says."""

    id: int
    kind: str
    name: str
    rows: tuple[Row, ...] = ()
    shape: Shape | None = None


@dataclass
class Scope:
    """Boxes and scopes whose names begin alike, in the order of the net."""

    path: str
    children: list[Box | Scope] = field(default_factory=list)

    def boxes(self) -> Iterator[Box]:
        """Yield all boxes here and below."""
        for child in self.children:
            if isinstance(child, Box):
                yield child
            else:
                yield from child.boxes()

    def rows(self) -> Iterator[Row]:
        """Yield all layers here and below."""
        for box in self.boxes():
            yield from box.rows


@dataclass(frozen=True)
class Edge:
    """A blob on its way from one box to another; the label is its shape."""

    source: int
    target: int
    label: str


@dataclass(frozen=True)
class Drawing:
    """A net to draw. `root` holds everything; edges name boxes by id."""

    title: str
    root: Scope
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


def drawing(analysis: Analysis) -> Drawing:
    """Return what a drawing of this net shows."""
    made = _Maker(analysis)
    boxes = made.boxes()
    edges = tuple(made.edges(boxes))
    root = _lifted(_tree([box for box in boxes if box.kind == "layers"]))
    _take_in(root, edges)
    root.children = [
        *(box for box in boxes if box.kind in ("input", "missing")),
        *root.children,
        *(box for box in boxes if box.kind == "output"),
    ]
    return Drawing(analysis.net.name, root, tuple(boxes), edges)


class _Maker:
    """Boxes and edges of one net."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis, self.net = analysis, analysis.net
        self.uses = Counter(value for layer in self.net.layers for value in layer.bottoms)

    def boxes(self) -> list[Box]:
        """Return inputs, stacks of layers, outputs, and the bottoms that nothing makes."""
        inputs = [("input", value.blob, (), self.analysis.shapes.get(value)) for value in self.net.inputs]
        stacks = [("layers", rows[0].layer.name, tuple(rows), None) for rows in self._stacks()]
        outputs = [("output", value.blob, (), self.analysis.shapes.get(value)) for value in self._outputs()]
        missing = [("missing", value.blob, (), None) for value in self.uses if value.version < 0]
        return [Box(id_, *one) for id_, one in enumerate([*inputs, *missing, *stacks, *outputs])]

    def _outputs(self) -> list[Value]:
        inputs = set(self.net.inputs)
        return [value for value in self.net.outputs if value not in inputs]

    def _stacks(self) -> list[list[Row]]:
        """Put a layer on the stack of the one it follows: in place, or by name (`conv1`, `conv1/bn`)."""
        stacks: list[list[Row]] = []
        by_value: dict[Value, list[Row]] = {}
        for row in self.analysis.rows:
            layer = row.layer
            below = by_value.get(layer.bottoms[0]) if len(layer.bottoms) == 1 else None
            if below is not None and self.uses[layer.bottoms[0]] == 1 and _follows(layer, below):
                below.append(row)
            else:
                below = [row]
                stacks.append(below)
            by_value.update(dict.fromkeys(layer.tops, below))
        return stacks

    def edges(self, boxes: list[Box]) -> Iterator[Edge]:
        """Yield an edge for every bottom from outside its stack, and for every output."""
        makers = {value: box.id for value, box in zip(self.net.inputs, boxes, strict=False)}
        missing = {box.name: box.id for box in boxes if box.kind == "missing"}
        outputs = {value: box.id for value, box in zip(self._outputs(), _of(boxes, "output"), strict=True)}
        for box in _of(boxes, "layers"):
            makers.update((top, box.id) for row in box.rows for top in row.layer.tops)
        for box in _of(boxes, "layers"):
            for value in box.rows[0].layer.bottoms:
                source = makers.get(value, missing.get(value.blob, box.id))
                yield Edge(source, box.id, show(self.analysis.shapes.get(value)))
        for value, id_ in outputs.items():
            yield Edge(makers[value], id_, show(self.analysis.shapes.get(value)))


def _of(boxes: list[Box], kind: str) -> list[Box]:
    return [box for box in boxes if box.kind == kind]


def _follows(layer: Layer, below: list[Row]) -> bool:
    """Whether a layer of one bottom belongs on top of the stack that makes it."""
    last, first = below[-1].layer, below[0].layer
    if layer.bottoms[0] not in last.tops or len(last.tops) > 1 or is_source(last):
        return False
    in_place = len(layer.tops) == 1 and layer.tops[0].blob == layer.bottoms[0].blob
    return in_place or layer.name.startswith(f"{first.name}/")


def _tree(boxes: list[Box]) -> Scope:
    """Return the boxes in scopes by their slash-separated names; a box named as a scope is in that scope."""
    scopes = {"": Scope("")}
    prefixes = {prefix for box in boxes for prefix in _prefixes(box.name)}
    for box in boxes:
        path = [*_prefixes(box.name), *([box.name] if box.name in prefixes else [])][:MAX_SCOPES]
        _scope(scopes, path).children.append(box)
    return scopes[""]


def _prefixes(name: str) -> list[str]:
    """Return `a` and `a/b` for `a/b/c`."""
    parts = name.split("/", MAX_SCOPES)[:-1]
    return ["/".join(parts[: index + 1]) for index in range(len(parts))]


def _scope(scopes: dict[str, Scope], path: list[str]) -> Scope:
    """Return the scope of a path, made where it is not there yet."""
    parent = scopes[""]
    for name in path:
        if name not in scopes:
            scopes[name] = Scope(name)
            parent.children.append(scopes[name])
        parent = scopes[name]
    return parent


def _lifted(scope: Scope, root: bool = True) -> Scope:
    """Take the boxes out of scopes that hold only one thing."""
    children: list[Box | Scope] = []
    for child in scope.children:
        inner = _lifted(child, False) if isinstance(child, Scope) else child
        lone = isinstance(inner, Scope) and len(inner.children) == 1
        children.append(inner.children[0] if isinstance(inner, Scope) and lone else inner)
    scope.children = children
    only = children[0] if root and len(children) == 1 else None
    return only if isinstance(only, Scope) else scope


def _take_in(root: Scope, edges: tuple[Edge, ...]) -> None:
    """Put a box at the top whose neighbours are all in one scope into that scope, which would else loop through it."""
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


def within(name: str, scope: str) -> str:
    """Return a name as it is called inside a scope: `b/c` for `a/b/c` in `a`, and `b` for `a/b` in `a/b` itself."""
    if name == scope:
        return name.rsplit("/", 1)[-1]
    return name.removeprefix(f"{scope}/") if scope else name


def numbers(rows: list[Row]) -> str:
    """Return layers, parameters and MACs in short."""
    parameters, macs = sum(row.parameters for row in rows), sum(row.macs or 0 for row in rows)
    unknown = "" if all(row.known for row in rows) else " at least"
    parts = [f"{len(rows)} layers"] if len(rows) > 1 else []
    parts += [f"{short(parameters)} parameters"] if parameters else []
    parts += [f"{short(macs)} MACs"] if macs else []
    return " · ".join(parts) + unknown


def short(count: int) -> str:
    """Return 25.6 M for 25,600,000."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
