"""Another path to `Graph`, for plugins written before it moved to `converters.onnx_export.onnx_graph`."""

from converters.onnx_export.onnx_graph import Graph

__all__ = ["Graph"]
