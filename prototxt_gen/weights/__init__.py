"""Weights of a net: the learned arrays by layer and role, read from and written to .caffemodel and .h5 files."""

from prototxt_gen.weights.net_weights import (
    Array,
    Weights,
    as_inverse_std,
    as_variance,
    bn_statistic,
    possible_dialects,
    read,
    write,
)

__all__ = ["Array", "Weights", "as_inverse_std", "as_variance", "bn_statistic", "possible_dialects", "read", "write"]
