"""`prototxt-gen layers`: what is known of each layer type."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from prototxt_gen.cli.options import as_json as json_option
from prototxt_gen.cli.output import echo_json
from prototxt_gen.cli.table import echo_table
from prototxt_gen.common.errors import PrototxtGenError, nearest

if TYPE_CHECKING:
    from prototxt_gen.layers.base import LayerType
    from prototxt_gen.schema.message import Field, Message

COLUMNS = ("type", "parameters", "bottoms", "tops", "PyTorch", "ONNX", "examples")


@click.command(name="layers")
@click.argument("type_", metavar="[TYPE]", required=False)
@json_option
def layers(type_: str | None, as_json: bool) -> None:
    """List the layer types and what can be done with each; or all that is known of one TYPE, with its fields."""
    from prototxt_gen import layers as registry

    layer_types = registry.all_layer_types()
    if type_ is None:
        rows = [_row(layer_types[name]) for name in sorted(layer_types, key=str.lower)]
        echo_json(rows) if as_json else _table(rows)
    elif type_ in layer_types:
        found = _details(layer_types[type_])
        echo_json(found) if as_json else _page(found)
    else:
        raise PrototxtGenError(f"there is no layer type {type_!r}{nearest(type_, layer_types)}")


def _row(layer_type: LayerType) -> dict[str, Any]:
    return {
        "type": layer_type.type,
        "parameters": [kind.field for kind in layer_type.params],
        "bottoms": str(layer_type.bottoms),
        "tops": "as bottoms" if layer_type.same_count else str(layer_type.tops),
        "pytorch": _is_shown(layer_type, "torch"),
        "onnx": _is_shown(layer_type, "onnx"),
        "examples": len(layer_type.examples),
    }


def _is_shown(layer_type: LayerType, target: str) -> bool:
    """Whether a layer type says how, and has examples that are compared with Caffe."""
    from prototxt_gen.layers.base import LayerType

    return getattr(type(layer_type), target) is not getattr(LayerType, target) and bool(layer_type.examples)


def _table(rows: list[dict[str, Any]]) -> None:
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


def _page(found: dict[str, Any]) -> None:
    click.echo(f"{found['type']}\n\n{found['document']}\n")
    click.echo(f"bottoms {found['bottoms']}; tops {found['tops']}")
    targets = [name for name, key in (("PyTorch", "pytorch"), ("ONNX", "onnx")) if found[key]]
    click.echo(f"lowered to: {', '.join(targets) or 'nothing'}; {found['examples']} examples compared with Caffe")
    for message in found["messages"]:
        click.echo(f"\n{message['field']} ({message['message']})")
        rows = [(f["name"], str(f["number"]), f["kind"], _shown(f["default"])) for f in message["fields"]]
        echo_table(("field", "number", "kind", "default"), rows)


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
