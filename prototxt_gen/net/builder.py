"""Builder: composes a net layer by layer, and infers shapes at each `add`, so that a wrong layer raises at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prototxt_gen import layers
from prototxt_gen.common.errors import NetError, UnsupportedError, layer_error, nearest
from prototxt_gen.ir import Layer, Net, Shape, Value
from prototxt_gen.layers.base import LayerType
from prototxt_gen.schema.caffe_proto import LayerParameter, NetParameter


class Builder:
    """Collects inputs and layers; `build` then returns the finished, frozen Net.

    A building block (such as a residual unit) is a plain function that takes a Builder and Values and adds layers.

    b = Builder("tiny")
    x = b.input("data", (1, 3, 32, 32))
    x = b.add("Convolution", "conv1", x, num_output=16, kernel_size=3, pad=1)
    x = b.add("ReLU", "relu1", x, in_place=True)
    net = b.build()
    """

    def __init__(self, name: str, params: NetParameter | None = None) -> None:
        self._name, self._layer_parameters = name, params or NetParameter()
        self._inputs: list[Value] = []
        self._layers: list[Layer] = []
        self._latest: dict[str, Value] = {}
        self._writer: dict[str, str] = {}
        self._names: set[str] = set()
        self._scope: tuple[str, ...] = ()

    def input(self, blob: str, shape: Shape) -> Value:
        """Declare an input of the net and return it. `shape` is N×C×H×W, or any other number of axes.

        Raises NetError if a blob of this name already exists.
        """
        if blob in self._latest:
            raise NetError(f"input {blob!r}: a blob of this name already exists")
        self._latest[blob] = value = Value(blob, 0, tuple(shape))
        self._inputs.append(value)
        return value

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Context manager that puts `name/` before the names of all layers added inside it."""
        self._scope = (*self._scope, name)
        try:
            yield
        finally:
            self._scope = self._scope[:-1]

    def name(self, name: str) -> str:
        """Return the full name of a layer called `name` in the current scope."""
        return "/".join((*self._scope, name))

    def add(self, type_: str, name: str, *bottoms: Value, in_place: bool = False, **fields: Any) -> Value:
        """Add a layer with one top and return this top, which has the layer's name, or overwrites the first bottom.

        `fields` are those of the layer type's own parameters (`num_output=64`) and of the layer (`loss_weight=1`,
        `include=…`, `param=…`). Raises NetError for an unknown field, a wrong shape, or a name that is already taken.
        """
        top = bottoms[0].blob if in_place and bottoms else self.name(name)
        if not in_place and top in self._latest and top not in self._names:
            raise layer_error(self.name(name), type_, f"its top {top!r} is a blob that already exists")
        return self.add_many(type_, name, *bottoms, tops=(top,), **fields)[0]

    def add_many(self, type_: str, name: str, *bottoms: Value, tops: Sequence[str], **fields: Any) -> tuple[Value, ...]:
        """Add a layer with any number of tops and return them. `tops` are the full names of the top blobs."""
        layer_type = layers.find_layer_type(type_)
        if layer_type is None:
            raise UnsupportedError(
                f"layer {name!r} ({type_}): the type is not known{nearest(type_, layers.all_layer_types())}"
            )
        full_name = self.name(name)
        params = _layer_parameters(layer_type, full_name, fields)
        layer = Layer(full_name, type_, bottoms, tuple(Value(top) for top in tops), params)
        self._check_names(layer)
        shapes = layer_type.infer(layer, [value.known_shape for value in bottoms])
        values = tuple(self._new_version(full_name, top, shape) for top, shape in zip(tops, shapes, strict=True))
        self._names.add(full_name)
        self._layers.append(Layer(full_name, type_, bottoms, values, params))
        return values

    def _check_names(self, layer: Layer) -> None:
        if layer.name in self._names:
            raise layer.error("a layer of this name already exists; weights are found by layer name")
        for bottom in layer.bottoms:
            if self._latest.get(bottom.blob) != bottom:
                writer = self._writer.get(bottom.blob, "another net")
                raise layer.error(
                    f"bottom {bottom.blob!r} was overwritten in place by layer {writer!r}; use the top of that layer"
                )
        for index, top in enumerate(layer.tops):
            in_place = index < len(layer.bottoms) and layer.bottoms[index].blob == top.blob
            if top.blob in self._latest and not in_place:
                raise layer.error(f"its top {top.blob!r} is a blob that already exists")

    def _new_version(self, layer: str, blob: str, shape: Shape) -> Value:
        last = self._latest.get(blob)
        self._latest[blob] = Value(blob, last.version + 1 if last else 0, shape)
        self._writer[blob] = layer
        return self._latest[blob]

    def build(self) -> Net:
        """Return the net of all inputs and layers added so far."""
        return Net(self._name, tuple(self._inputs), tuple(self._layers), self._layer_parameters)


def _layer_parameters(layer_type: LayerType, name: str, fields: dict[str, Any]) -> LayerParameter:
    """Return a LayerParameter of keyword fields, those of the type's own message (convolution_param, …) put into it."""
    type_message = layer_type.params[0] if layer_type.params else None
    type_field_names = type_message.fields if type_message is not None else {}
    type_fields = {
        key: value for key, value in fields.items() if type_message is not None and key in type_message.fields
    }
    layer_fields = {key: value for key, value in fields.items() if key not in type_fields}
    known = [*type_field_names, *LayerParameter.fields]
    for key in layer_fields:
        if key not in LayerParameter.fields:
            raise NetError(f"layer {name!r} ({layer_type.type}): unknown field {key!r}{nearest(key, known)}")
    if type_message is not None and type_fields:
        layer_fields[type_message.field] = type_message(**type_fields)
    return LayerParameter(**layer_fields)
