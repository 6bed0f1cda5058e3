"""Search for the fields of a net that a fork of Caffe does not have."""

from __future__ import annotations

from collections.abc import Iterator

from prototxt_gen.ir import Net
from prototxt_gen.schema.dialect import Dialect


def fields_missing_in_dialect(dialect: Dialect, net: Net) -> Iterator[tuple[str, str]]:
    """Yield (layer name, dotted path) of each field that the net sets and the fork does not have.

    The layer name is empty for a field of the net itself. Fields that are in no fork's schema (extras) are left out.
    """
    yield from (("", path) for path in dialect.missing_fields(net.params, "NetParameter"))
    for layer in net.layers:
        yield from ((layer.name, path) for path in dialect.missing_fields(layer.params, "LayerParameter"))
