"""Net, Layer and Value: immutable data classes that represent a net."""

from prototxt_gen.ir.net import NOBODY, Kind, Layer, Net, Shape, Value, link, show

__all__ = ["NOBODY", "Kind", "Layer", "Net", "Shape", "Value", "link", "show"]
