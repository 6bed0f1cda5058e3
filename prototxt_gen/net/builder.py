"""Builder: composes a net layer by layer. Shapes are known at each add: an error points at the line that wrote it."""

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
    """Collects inputs and layers. A block is a plain function of a Builder and Values; `build` returns the frozen Net.

    b = Builder("tiny")
    x = b.input("data", (1, 3, 32, 32))
    x = b.add("Convolution", "conv1", x, num_output=16, kernel_size=3, pad=1)
    x = b.add("ReLU", "relu1", x, in_place=True)
    net = b.build()
    """

    def __init__(self, name: str, params: NetParameter | None = None) -> None:
        self._name, self._params = name, params or NetParameter()
        self._inputs: list[Value] = []
        self._layers: list[Layer] = []
        self._latest: dict[str, Value] = {}
        self._writer: dict[str, str] = {}
        self._names: set[str] = set()
        self._scope: tuple[str, ...] = ()

    def input(self, blob: str, shape: Shape) -> Value:
        """Declare an input of the net, of shape N×C×H×W."""
        if blob in self._latest:
            raise NetError(f"input {blob!r}: a blob of this name is there already")
        self._latest[blob] = value = Value(blob, 0, tuple(shape))
        self._inputs.append(value)
        return value

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `name/` before the names of all layers added inside."""
        self._scope = (*self._scope, name)
        try:
            yield
        finally:
            self._scope = self._scope[:-1]

    def name(self, name: str) -> str:
        """Return the full name of a layer called `name` in the present scope."""
        return "/".join((*self._scope, name))

    def add(self, type_: str, name: str, *bottoms: Value, in_place: bool = False, **fields: Any) -> Value:
        """Add a layer with one top, called as the layer, or written over the first bottom; return the top.

        `fields` are those of the layer type's own parameters (`num_output=64`) and of the layer (`loss_weight=1`,
        `include=…`, `param=…`). NetError on an unknown field, a wrong shape, or a name given twice.
        """
        top = bottoms[0].blob if in_place and bottoms else self.name(name)
        if not in_place and top in self._latest and top not in self._names:
            raise layer_error(self.name(name), type_, f"its top {top!r} is a blob that is there already")
        return self.add_many(type_, name, *bottoms, tops=(top,), **fields)[0]

    def add_many(self, type_: str, name: str, *bottoms: Value, tops: Sequence[str], **fields: Any) -> tuple[Value, ...]:
        """Add a layer with these top blobs, named in full; return the tops."""
        layer_type = layers.find_layer_type(type_)
        if layer_type is None:
            raise UnsupportedError(
                f"layer {name!r} ({type_}): the type is not known{nearest(type_, layers.all_layer_types())}"
            )
        full = self.name(name)
        layer = Layer(full, type_, bottoms, tuple(Value(top) for top in tops), _params(layer_type, full, fields))
        self._check_names(layer)
        shapes = layer_type.infer(layer, [value.known_shape for value in bottoms])
        made = tuple(self._write(full, top, shape) for top, shape in zip(tops, shapes, strict=True))
        self._names.add(full)
        self._layers.append(Layer(full, type_, bottoms, made, layer.params))
        return made

    def _check_names(self, layer: Layer) -> None:
        if layer.name in self._names:
            raise layer.error("a layer of this name is there already; Caffe would let the two share weights")
        for bottom in layer.bottoms:
            if self._latest.get(bottom.blob) != bottom:
                writer = self._writer.get(bottom.blob, "another net")
                raise layer.error(f"bottom {bottom.blob!r} was written over in place by layer {writer!r}; take its top")
        for index, top in enumerate(layer.tops):
            in_place = index < len(layer.bottoms) and layer.bottoms[index].blob == top.blob
            if top.blob in self._latest and not in_place:
                raise layer.error(f"its top {top.blob!r} is a blob that is there already")

    def _write(self, layer: str, blob: str, shape: Shape) -> Value:
        last = self._latest.get(blob)
        self._latest[blob] = Value(blob, last.version + 1 if last else 0, shape)
        self._writer[blob] = layer
        return self._latest[blob]

    def build(self) -> Net:
        """Return the net."""
        return Net(self._name, tuple(self._inputs), tuple(self._layers), self._params)


def _params(layer_type: LayerType, name: str, fields: dict[str, Any]) -> LayerParameter:
    """Sort keyword fields into the layer's own parameter message and the layer itself."""
    own = layer_type.params[0] if layer_type.params else None
    inner = {key: value for key, value in fields.items() if own is not None and key in own.fields}
    outer = {key: value for key, value in fields.items() if key not in inner}
    known = [*(own.fields if own else ()), *LayerParameter.fields]
    for key in outer:
        if key not in LayerParameter.fields:
            raise NetError(f"layer {name!r} ({layer_type.type}): there is no field {key!r}{nearest(key, known)}")
    if own is not None and inner:
        outer[own.field] = own(**inner)
    return LayerParameter(**outer)
