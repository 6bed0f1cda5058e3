"""Frozen types: Net, Layer and Value, a net as plain data."""

from prototxt_gen.ir.net import NOBODY, Kind, Layer, Net, Shape, Value, link, show

__all__ = ["NOBODY", "Kind", "Layer", "Net", "Shape", "Value", "link", "show"]
