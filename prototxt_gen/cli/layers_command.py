"""`prototxt-gen layers`: the supported layer types."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli import options
from prototxt_gen.cli.command import Command
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.table import echo_table
from prototxt_gen.common.errors import PrototxtGenError, nearest

if TYPE_CHECKING:
    from prototxt_gen.layers.base import LayerType
    from prototxt_gen.schema.message import Field, Message

COLUMNS = ("type", "parameters", "bottoms", "tops", "PyTorch", "ONNX", "examples")


@click.command(cls=Command, examples=["prototxt-gen layers", "prototxt-gen layers Pooling"])
@click.argument("type_", metavar="[TYPE]", required=False)
@options.as_json
def layers(type_: str | None, as_json: bool) -> None:
    """List the supported layer types; with TYPE, describe one of them and its fields."""
    from prototxt_gen import layers as registry

    types = registry.all_layer_types()
    if type_ is None:
        rows = [_row(types[name]) for name in sorted(types, key=str.lower)]
        echo_json(rows) if as_json else _echo_list(rows)
    elif type_ in types:
        found = _details(types[type_])
        echo_json(found) if as_json else _echo_details(found)
    else:
        raise PrototxtGenError(f"there is no layer type {type_!r}{nearest(type_, types)}")


def _row(layer_type: LayerType) -> dict[str, Any]:
    return {
        "type": layer_type.type,
        "parameters": [kind.field for kind in layer_type.params],
        "bottoms": str(layer_type.bottoms),
        "tops": "as bottoms" if layer_type.same_count else str(layer_type.tops),
        "pytorch": _is_tested(layer_type, "torch"),
        "onnx": _is_tested(layer_type, "onnx"),
        "examples": len(layer_type.examples),
    }


def _is_tested(layer_type: LayerType, target: str) -> bool:
    """Return whether the type runs in PyTorch (`torch`) or ONNX (`onnx`), and has examples that test it."""
    from prototxt_gen.layers.base import LayerType

    return getattr(type(layer_type), target) is not getattr(LayerType, target) and bool(layer_type.examples)


def _echo_list(rows: list[dict[str, Any]]) -> None:
    echo_table(
        COLUMNS,
        [
            (
                row["type"],
                ", ".join(row["parameters"]),
                row["bottoms"],
                row["tops"],
                "yes" if row["pytorch"] else "",
                "yes" if row["onnx"] else "",
                str(row["examples"] or ""),
            )
            for row in rows
        ],
        right=("examples",),
    )
    done = [sum(bool(row[target]) for row in rows) for target in ("pytorch", "onnx")]
    click.echo(f"\n{len(rows)} types; {done[0]} run in PyTorch, {done[1]} in ONNX; examples are compared with Caffe")


def _details(layer_type: LayerType) -> dict[str, Any]:
    document = inspect.cleandoc(type(layer_type).__doc__ or "")
    kinds = [{"message": k.proto, "field": k.field, "fields": list(_fields(k))} for k in layer_type.params]
    return _row(layer_type) | {
        "document": document,
        "file": inspect.getfile(type(layer_type)),
        "messages": kinds,
        "cases": [one.name for one in layer_type.examples],
    }


def _fields(kind: type[Message], depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the fields of a message, those of messages inside it after it with their path."""
    for name, field in kind.fields.items():
        default = None if field.repeated or field.message is not None else field.default
        yield {"name": name, "number": field.number, "kind": _kind(field), "default": default}
        if field.message is not None and depth < 2:
            for inner in _fields(field.message, depth + 1):
                yield inner | {"name": f"{name}.{inner['name']}"}


def _kind(field: Field[Any]) -> str:
    one = field.message.proto if field.message is not None else "|".join(field.enum) if field.enum else field.kind
    return f"repeated {one}" if field.repeated else one


def _echo_details(found: dict[str, Any]) -> None:
    click.echo(f"{found['type']}\n\n{found['document']}\n")
    click.echo(f"file: {found['file']}")
    click.echo(f"bottoms {found['bottoms']}; tops {found['tops']}")
    targets = [name for name, key in (("PyTorch", "pytorch"), ("ONNX", "onnx")) if found[key]]
    click.echo(f"lowered to: {', '.join(targets) or 'nothing'}; {found['examples']} examples compared with Caffe")
    for message in found["messages"]:
        click.echo(f"\n{message['field']} ({message['message']})")
        rows = [(f["name"], str(f["number"]), f["kind"], _default_text(f["default"])) for f in message["fields"]]
        echo_table(("field", "number", "kind", "default"), rows)


def _default_text(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
