"""Utility layers: they reshape, join, cut and combine blobs."""
