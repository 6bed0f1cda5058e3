"""Passes: pure functions from a net to a net."""
