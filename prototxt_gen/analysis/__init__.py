"""Shapes, learned parameters, multiply-accumulates (MACs) and memory of each layer of a net."""

from prototxt_gen.analysis.net_analysis import (
    FLOAT_BYTES,
    Analysis,
    LayerKey,
    Row,
    analyse,
    resized_input_shapes,
    top_shapes,
)

__all__ = ["FLOAT_BYTES", "Analysis", "LayerKey", "Row", "analyse", "resized_input_shapes", "top_shapes"]
