"""Helpers for all other parts: errors, safe writing of files, optional packages, printable text."""
