"""Prototxt text to Net: any version, any fork's fields, both ways of declaring inputs.

What the schema does not know is kept in the messages' `extras` and comes back when the net is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path

from prototxt_gen import layers
from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.ir import Layer, Net, Shape, Value, link
from prototxt_gen.net.upgrade import Tree, type_name, upgrade
from prototxt_gen.schema.caffe_proto import BlobShape, LayerParameter, NetParameter
from prototxt_gen.text import Field, Word, parse

LARGEST = 32 << 20
"""Bytes. A net of 100,000 layers has some 20 MiB; a .caffemodel given by mistake may have gigabytes."""
_STRUCTURE = {"name", "input", "input_shape", "input_dim", "layer", "layers"}
_LAYER_STRUCTURE = {"name", "type", "bottom", "top"}


def read_text(path: str | PathLike[str]) -> bytes:
    """Return a file's bytes; PrototxtError where it cannot be read, or is larger than any prototxt."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise PrototxtError(f"{fspath(path)}: {error.strerror or error}") from None
    if len(text) > LARGEST:
        raise PrototxtError(f"{fspath(path)}: more than {LARGEST >> 20} MiB, so this is no prototxt")
    return text


def read(path: str | PathLike[str]) -> Net:
    """Read a net prototxt, with the layers of all phases; `Net.at` then gives the net of one.

    Raises PrototxtError, naming file and line, where the text is no text format or no net.
    """
    return parse_net(read_text(path), source=fspath(path))


def parse_net(text: str | bytes, source: str = "") -> Net:
    """Parse a net from text; `source` names it in error texts."""
    try:
        return net_from_tree(parse(text), source)
    except PrototxtError as error:
        raise PrototxtError(f"{source}: {error}" if source else str(error), error.line) from None


def net_from_tree(tree: Tree, source: str = "") -> Net:
    """Make a net of a parsed NetParameter."""
    layers.all_layer_types()  # the layer types add their parameters to the schema
    inputs = tuple(_inputs(tree))
    made = [_layer(layer) for layer in _layers(tree)]
    name = _one_string(tree, "name")
    params = NetParameter.from_text([field for field in tree if field.name not in _STRUCTURE])
    return Net(name, inputs, tuple(link(inputs, made)), params, source)


def _layers(tree: Tree) -> list[Tree]:
    """Return all layers as V2, in file order. A file may mix `layer` and `layers`, though Caffe would not run it."""
    new = [_message(field) for field in tree if field.name == "layer"]
    old = [_message(field) for field in tree if field.name == "layers"]
    if not old:
        return new
    made = upgrade(old)
    return made if not new else sorted(new + made, key=lambda layer: layer[0].line if layer else 0)


def _layer(tree: Tree) -> Layer:
    ends: dict[str, list[Value]] = {"bottom": [], "top": []}
    for field in tree:
        if field.name in ends:
            ends[field.name].append(Value(_string(field)))
    return Layer(
        _one_string(tree, "name"),
        _one_string(tree, "type"),
        tuple(ends["bottom"]),
        tuple(ends["top"]),
        LayerParameter.from_text([field for field in tree if field.name not in _LAYER_STRUCTURE]),
        tree[0].line if tree else 0,
    )


def _string(field: Field) -> str:
    if isinstance(field.value, Word):
        if field.name == "type":
            return type_name(field.value)
    elif isinstance(field.value, str):
        return field.value
    raise PrototxtError(f"line {field.line}: {field.name} must be a string in quotes", field.line)


def _one_string(tree: Tree, name: str) -> str:
    found = [field for field in tree if field.name == name]
    if len(found) > 1:
        raise PrototxtError(
            f"line {found[1].line}: {name} is given twice, first in line {found[0].line}", found[1].line
        )
    return _string(found[0]) if found else ""


def _message(field: Field) -> Tree:
    if not isinstance(field.value, tuple):
        raise PrototxtError(f"line {field.line}: {field.name} must be a message in braces", field.line)
    return field.value


def _inputs(tree: Tree) -> Iterator[Value]:
    """Yield the inputs with their shapes: input_shape counts before input_dim, and without inputs neither counts.

    Source: src/caffe/util/upgrade_proto.cpp UpgradeNetInput.
    """
    names = [_string(field) for field in tree if field.name == "input"]
    told = [field for field in tree if field.name == "input_shape"] if names else []
    dims = [field for field in tree if field.name == "input_dim"] if names and not told else []
    shapes = [_shape(field) for field in told] or [tuple(map(_dim, dims[i : i + 4])) for i in range(0, len(dims), 4)]
    if (shapes and len(shapes) != len(names)) or len(dims) % 4:
        line = (told or dims)[0].line
        raise PrototxtError(f"line {line}: {len(names)} inputs, but shapes for {len(shapes)}: one shape each", line)
    if len(set(names)) != len(names):
        raise PrototxtError(f"input {_repeated(names)!r} is declared twice")
    for index, name in enumerate(names):
        yield Value(name, 0, shapes[index] if shapes else None)


def _repeated(names: Sequence[str]) -> str:
    return next(name for index, name in enumerate(names) if name in names[:index])


def _shape(field: Field) -> Shape:
    made = BlobShape.from_text(_message(field))
    if made.extras:
        raise PrototxtError(f"line {field.line}: input_shape: {made.extras[0].reason}", field.line)
    return tuple(_size(dim, field) for dim in made.dim)


def _dim(field: Field) -> int:
    if isinstance(field.value, int) and not isinstance(field.value, bool):
        return _size(field.value, field)
    raise PrototxtError(f"line {field.line}: input_dim must be a whole number", field.line)


def _size(dim: int, field: Field) -> int:
    if dim < 0:
        raise PrototxtError(f"line {field.line}: {field.name}: a blob has no negative sizes, such as {dim}", field.line)
    return dim
