"""Passes: pure functions that return a transformed net (and its weights, for those that change learned blobs)."""
