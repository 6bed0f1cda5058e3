"""Fields of a net that a fork of Caffe does not have."""

from __future__ import annotations

from collections.abc import Iterator

from prototxt_gen.ir import Net
from prototxt_gen.schema.dialect import Dialect


def unknown_fields(dialect: Dialect, net: Net) -> Iterator[tuple[str, str]]:
    """Yield (layer name, dotted path) of each field that the net sets and the fork does not have.

    The layer name is empty for a field of the net itself. A field that no schema knows is not among them.
    """
    yield from (("", path) for path in dialect.unknown_fields(net.params, "NetParameter"))
    for layer in net.layers:
        yield from ((layer.name, path) for path in dialect.unknown_fields(layer.params, "LayerParameter"))
