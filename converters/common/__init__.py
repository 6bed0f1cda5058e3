"""Shared by all conversions: the net with its weights, its preprocessing, and reading and writing of model files."""
