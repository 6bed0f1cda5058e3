"""Nets as PyTorch: a model.py that stands alone, with its weights beside it, or a .pt2."""
