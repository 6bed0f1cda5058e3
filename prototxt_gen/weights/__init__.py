"""The learned arrays of a net, by layer and role, read from and written to .caffemodel and .h5 files."""

from prototxt_gen.weights.net_weights import (
    Array,
    Weights,
    as_inverse_std,
    as_variance,
    read,
    statistic_of,
    told_dialect,
    write,
)

__all__ = ["Array", "Weights", "as_inverse_std", "as_variance", "read", "statistic_of", "told_dialect", "write"]
