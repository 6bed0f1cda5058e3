"""Alias of `converters.onnx_export.onnx_graph` for plugins that import `Graph` from here."""

from converters.onnx_export.onnx_graph import Graph

__all__ = ["Graph"]
