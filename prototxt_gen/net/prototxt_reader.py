"""Reader of prototxt files: text to Net, for V0, V1 and V2 layers and the fields of all forks of Caffe.

Unknown fields are kept in the `extras` of the messages, and written again when the net is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path

from prototxt_gen import layers
from prototxt_gen.common.errors import PrototxtError
from prototxt_gen.ir import Layer, Net, Shape, Value, link
from prototxt_gen.net.crop_alignment import with_v1_crops_resolved
from prototxt_gen.net.upgrade import Tree, type_name, upgrade
from prototxt_gen.schema.caffe_proto import BlobShape, LayerParameter, NetParameter
from prototxt_gen.text import Field, Word, parse

MAX_BYTES = 32 << 20
"""Size limit of a prototxt. A net of 100,000 layers has about 20 MiB; a .caffemodel given by mistake may have GiB."""
_STRUCTURE = {"name", "input", "input_shape", "input_dim", "layer", "layers"}
_LAYER_STRUCTURE = {"name", "type", "bottom", "top"}


def read_prototxt_bytes(path: str | PathLike[str]) -> bytes:
    """Return the bytes of a prototxt file. Raises PrototxtError if it cannot be read or exceeds MAX_BYTES."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PrototxtError(f"{fspath(path)}: {error.strerror or error}") from None
    if len(text) > MAX_BYTES:
        raise PrototxtError(f"{fspath(path)}: the file is larger than {MAX_BYTES >> 20} MiB, so it is no prototxt")
    return text


def read_net(path: str | PathLike[str]) -> Net:
    """Read a net prototxt and return its Net, with the layers of all phases; `Net.at` then selects one phase.

    Raises PrototxtError, which names the file and line, if the text is not in protobuf text format or not a net.
    """
    return parse_net(read_prototxt_bytes(path), source=fspath(path))


read = read_net  # the name that `prototxt_gen.read` had first


def parse_net(text: str | bytes, source: str = "") -> Net:
    """Return the Net of a prototxt text. `source` is the file name for error messages. Raises PrototxtError."""
    try:
        return net_from_tree(parse(text), source)
    except PrototxtError as error:
        raise PrototxtError(f"{source}: {error}" if source else str(error), error.line) from None


def net_from_tree(tree: Tree, source: str = "") -> Net:
    """Return the Net of a parsed NetParameter. Raises PrototxtError without the name of the file."""
    layers.all_layer_types()  # the layer types add their parameters to the schema
    inputs = tuple(_parse_inputs(tree))
    parsed = [_parse_layer(layer) for layer in _v2_layers(tree)]
    name = _single_string(tree, "name")
    params = NetParameter.from_text([field for field in tree if field.name not in _STRUCTURE])
    return with_v1_crops_resolved(Net(name, inputs, tuple(link(inputs, parsed)), params, source))


def _v2_layers(tree: Tree) -> list[Tree]:
    """Return all layers as V2, in file order. A file may mix `layer` and `layers`, though Caffe refuses it."""
    new = [_message_of(field) for field in tree if field.name == "layer"]
    old = [_message_of(field) for field in tree if field.name == "layers"]
    if not old:
        return new
    upgraded = upgrade(old)
    return upgraded if not new else sorted(new + upgraded, key=lambda layer: layer[0].line if layer else 0)


def _parse_layer(tree: Tree) -> Layer:
    ends: dict[str, list[Value]] = {"bottom": [], "top": []}
    for field in tree:
        if field.name in ends:
            ends[field.name].append(Value(_string_of(field)))
    return Layer(
        _single_string(tree, "name"),
        _single_string(tree, "type"),
        tuple(ends["bottom"]),
        tuple(ends["top"]),
        LayerParameter.from_text([field for field in tree if field.name not in _LAYER_STRUCTURE]),
        tree[0].line if tree else 0,
    )


def _string_of(field: Field) -> str:
    if isinstance(field.value, Word):
        if field.name == "type":
            return type_name(field.value)
    elif isinstance(field.value, str):
        return field.value
    raise PrototxtError(f"line {field.line}: the value of {field.name} must be a string in quotes", field.line)


def _single_string(tree: Tree, name: str) -> str:
    fields = [field for field in tree if field.name == name]
    if len(fields) > 1:
        first, second = fields[0].line, fields[1].line
        raise PrototxtError(f"line {second}: {name} is given twice, first in line {first}", second)
    return _string_of(fields[0]) if fields else ""


def _message_of(field: Field) -> Tree:
    if not isinstance(field.value, tuple):
        raise PrototxtError(f"line {field.line}: the value of {field.name} must be a message in braces", field.line)
    return field.value


def _parse_inputs(tree: Tree) -> Iterator[Value]:
    """Yield the net's inputs with their shapes, from input_shape if there is one, else from input_dim.

    Source: src/caffe/util/upgrade_proto.cpp UpgradeNetInput.
    """
    names = [_string_of(field) for field in tree if field.name == "input"]
    shape_fields = [field for field in tree if field.name == "input_shape"] if names else []
    dims = [field for field in tree if field.name == "input_dim"] if names and not shape_fields else []
    shapes = [_shape_of(field) for field in shape_fields]
    shapes = shapes or [tuple(map(_dim_of, dims[i : i + 4])) for i in range(0, len(dims), 4)]
    if len(dims) % 4:
        line = dims[0].line
        raise PrototxtError(f"line {line}: {len(dims)} input_dim, but each input needs 4", line)
    if shapes and len(shapes) != len(names):
        line = (shape_fields or dims)[0].line
        raise PrototxtError(f"line {line}: {len(names)} inputs, but {len(shapes)} shapes; each input needs one", line)
    if len(set(names)) != len(names):
        raise PrototxtError(f"input {_first_duplicate(names)!r} is declared twice")
    for index, name in enumerate(names):
        yield Value(name, 0, shapes[index] if shapes else None)


def _first_duplicate(names: Sequence[str]) -> str:
    return next(name for index, name in enumerate(names) if name in names[:index])


def _shape_of(field: Field) -> Shape:
    shape = BlobShape.from_text(_message_of(field))
    if shape.extras:
        raise PrototxtError(f"line {field.line}: input_shape: {shape.extras[0].reason}", field.line)
    return tuple(_checked_size(dim, field) for dim in shape.dim)


def _dim_of(field: Field) -> int:
    if isinstance(field.value, int) and not isinstance(field.value, bool):
        return _checked_size(field.value, field)
    raise PrototxtError(f"line {field.line}: input_dim must be a whole number", field.line)


def _checked_size(dim: int, field: Field) -> int:
    if dim < 0:
        raise PrototxtError(f"line {field.line}: {field.name}: a size cannot be negative: {dim}", field.line)
    return dim
