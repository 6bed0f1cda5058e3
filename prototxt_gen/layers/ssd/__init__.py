"""Arithmetic of boxes in NumPy, for rooms that detect; imported only where a net runs, as NumPy is heavy."""
